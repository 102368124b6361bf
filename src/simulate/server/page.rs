//! A simulation as a page that a person reads: what happened, who gets what, the calls, the events. Static, without scripts; whatever
//! came from outside is escaped. Pure.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use alloy::primitives::{Address, B256, U256, hex};

use super::Simulated;
use super::render::{AssetMove, asset_moves, failure};
use crate::clock::rfc3339;
use crate::simulate::EventLog;
use crate::simulate::effects::{Delta, TRANSFER};
use crate::simulate::frame::CallFrame;
use crate::simulate::names::{Kind, Names};

/// The style, which the page's policy names by its hash.
pub(super) const STYLE: &str = include_str!("page.css");

/// Most calls, events and movements that are shown.
const FRAMES_MAX: usize = 400;
const LOGS_MAX: usize = 100;
const MOVES_MAX: usize = 100;
/// Longest data that is shown, in bytes.
const DATA_BYTES_MAX: usize = 256;

/// Text as it stands between tags or in a quoted attribute.
pub(super) fn escape(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            // Marks that change the direction of what follows could make one address look like another.
            '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{200e}' | '\u{200f}' => safe.push('\u{fffd}'),
            c if c.is_control() => safe.push(' '),
            c => safe.push(c),
        }
    }
    safe
}

/// The page. `chain` is the chain's display name.
pub(super) fn render(result: &Simulated, chain: &str, names: &Names) -> String {
    let mut page = String::with_capacity(16 * 1024);
    let why = failure(result, names);
    let (class, word) = if why.is_none() { ("success", "Success") } else { ("failed", "Failed") };
    let title = format!("Simulation on {}", escape(chain));
    let _ = write!(
        page,
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\
         <meta name=\"robots\" content=\"noindex\"><title>{title}: {word}</title><style>{STYLE}</style></head><body><main>\
         <h1>{title} <span class=\"badge {class}\">{word}</span></h1>\
         <p class=\"dim\">{} on block {} · <code>{}</code></p>",
        escape(&rfc3339(result.at)),
        result.block.number,
        result.id,
    );
    if let Some(why) = why {
        let _ = write!(page, "<p class=\"why\" role=\"alert\"><strong>It would fail.</strong> {}</p>", escape(&why));
    }
    if !result.outcome.complete {
        page.push_str(
            "<p class=\"why\">The node can neither trace nor tell transfers: what is shown below is not all.</p>",
        );
    }
    summary(&mut page, result, names);
    movements(&mut page, result);
    calls(&mut page, result, names);
    events(&mut page, result);
    page.push_str(
        "<footer>A simulation shows what would happen on the state of its block. Nothing here was signed or sent. Names of functions, \
         errors and tokens are what contracts and ABIs say: anybody can choose any.</footer></main></body></html>\n",
    );
    page
}

fn summary(page: &mut String, result: &Simulated, names: &Names) {
    let call = &result.call;
    let to = result.frame.to.or(call.to).map_or_else(|| "a new contract".to_owned(), |to| to.to_string());
    let gas = match call.gas_limit {
        Some(limit) if limit > 0 => {
            format!(
                "{} of {} ({} %)",
                grouped(result.outcome.gas_used),
                grouped(limit),
                result.outcome.gas_used * 100 / limit
            )
        }
        _ => grouped(result.outcome.gas_used),
    };
    let value = format!("{} {}", Delta::gain(call.value).to_units(18), escape(&result.native));
    page.push_str("<h2>Transaction</h2><div class=\"card\"><table>");
    let rows = [
        ("From", format!("<code>{}</code>", call.from)),
        ("To", format!("<code>{to}</code>")),
        ("Value", value),
        ("Calls", function(&call.data, call.to, names).unwrap_or_else(|| "nothing: a plain transfer".to_owned())),
        ("Gas used", gas),
    ];
    for (name, value) in rows {
        let _ = write!(page, "<tr><th scope=\"row\">{name}</th><td>{value}</td></tr>");
    }
    page.push_str("</table></div>");
}

/// What calldata asks for, escaped; `None` where there is none.
fn function(data: &[u8], contract: Option<Address>, names: &Names) -> Option<String> {
    if data.is_empty() {
        return None;
    }
    let decoded = names.decode(Kind::Function, data, contract).or_else(|| {
        names
            .find(Kind::Function, data, contract)
            .map(|item| format!("{} (its arguments do not decode)", item.signature))
    });
    Some(match (decoded, data.get(..4)) {
        (Some(text), _) => format!("<span class=\"what\">{}</span>", escape(&text)),
        (None, Some(selector)) => {
            format!("an unknown function, selector <code>{}</code>", hex::encode_prefixed(selector))
        }
        (None, None) => format!("<code>{}</code>", shown(data)),
    })
}

fn movements(page: &mut String, result: &Simulated) {
    let moves = asset_moves(result);
    page.push_str("<h2>Asset movements</h2><div class=\"card\">");
    if moves.is_empty() {
        page.push_str("<p class=\"dim\">None.</p></div>");
        return;
    }
    page.push_str("<table><tr><th>From</th><th>To</th><th class=\"num\">Amount</th><th>Asset</th></tr>");
    for asset in moves.iter().take(MOVES_MAX) {
        let party = |address: Address| match (asset.token, address.is_zero()) {
            (Some(_), true) => "<span class=\"dim\">nobody (mint or burn)</span>".to_owned(),
            _ if address == result.call.from => format!("<code>{address}</code> <span class=\"dim\">(sender)</span>"),
            _ => format!("<code>{address}</code>"),
        };
        let class = if asset.from == result.call.from {
            "out"
        } else if asset.to == result.call.from {
            "in"
        } else {
            ""
        };
        let amount = match asset.token_id {
            Some(id) => format!("token {}", escape(&alloy::primitives::U256::from_be_bytes(id.0).to_string())),
            None => asset.units(),
        };
        let _ = write!(
            page,
            "<tr><td>{}</td><td>{}</td><td class=\"num {class}\">{amount}</td><td>{}</td></tr>",
            party(asset.from),
            party(asset.to),
            asset_name(asset),
        );
    }
    page.push_str("</table>");
    more(page, moves.len(), MOVES_MAX, "movements");
    page.push_str("</div>");
    sums(page, result, &moves);
}

fn asset_name(asset: &AssetMove) -> String {
    let symbol = escape(asset.symbol.as_deref().unwrap_or("unnamed token"));
    match asset.token {
        None => symbol,
        Some(token) => format!("{symbol} <code class=\"data\">{token}</code>"),
    }
}

/// What the sender has more or less of in the end.
fn sums(page: &mut String, result: &Simulated, moves: &[AssetMove]) {
    let mut sums: BTreeMap<Option<Address>, (String, u8, Delta)> = BTreeMap::new();
    for asset in moves.iter().filter(|asset| asset.token_id.is_none()) {
        let entry = sums.entry(asset.token).or_insert_with(|| (asset_name(asset), asset.decimals, Delta::default()));
        let amount = Delta::gain(asset.amount);
        if asset.from == result.call.from {
            entry.2 = entry.2.plus(amount.negated());
        }
        if asset.to == result.call.from {
            entry.2 = entry.2.plus(amount);
        }
    }
    let sums: Vec<_> = sums.into_values().filter(|(_, _, delta)| !delta.is_zero()).collect();
    if sums.is_empty() {
        return;
    }
    page.push_str("<h2>The sender in the end</h2><div class=\"card\"><table>");
    for (name, decimals, delta) in sums {
        let text = delta.to_signed_units(decimals);
        let class = if text.starts_with('-') { "out" } else { "in" };
        let _ = write!(page, "<tr><td class=\"num {class}\">{text}</td><td>{name}</td></tr>");
    }
    page.push_str("</table></div>");
}

fn calls(page: &mut String, result: &Simulated, names: &Names) {
    page.push_str("<h2>Calls</h2>");
    if !result.traced {
        page.push_str("<p class=\"dim\">The node has no tracer: of what happens inside only transfers are known.</p>");
    }
    page.push_str("<div class=\"card\"><ul class=\"tree\">");
    let mut left = FRAMES_MAX;
    frame(page, &result.frame, result, names, &mut left);
    page.push_str("</ul>");
    if left == 0 {
        let _ = write!(page, "<p class=\"dim\">… and more: only the first {FRAMES_MAX} calls are shown.</p>");
    }
    page.push_str("</div>");
}

fn frame(page: &mut String, call: &CallFrame, result: &Simulated, names: &Names, left: &mut usize) {
    if *left == 0 {
        return;
    }
    *left -= 1;
    let to = call.to.map_or_else(|| "a new contract".to_owned(), |to| to.to_string());
    let class = if call.error.is_some() { "frame error" } else { "frame" };
    let _ =
        write!(page, "<li><div class=\"{class}\"><span class=\"kind\">{}</span><code>{to}</code> ", escape(&call.kind));
    if let Some(what) = function(&call.input, call.to, names).filter(|_| !call.kind.starts_with("CREATE")) {
        page.push_str(&what);
    }
    if call.transfers() {
        let _ = write!(page, " · {} {}", Delta::gain(call.value).to_units(18), escape(&result.native));
    }
    let _ = write!(page, " <span class=\"dim\">· {} gas</span>", grouped(call.gas_used));
    if !call.output.is_empty() && call.error.is_none() {
        let _ = write!(page, "<span class=\"data\">returns <code>{}</code></span>", shown(&call.output));
    }
    if let Some(error) = &call.error {
        let said = if call.output.is_empty() {
            error.clone()
        } else {
            let named = names.decode(Kind::Error, &call.output, call.to);
            named.unwrap_or_else(|| crate::simulate::revert::Reason::decode(&call.output).to_string())
        };
        let _ = write!(page, "<span class=\"data out\">fails: {}</span>", escape(&said));
    }
    page.push_str("</div>");
    if !call.calls.is_empty() {
        page.push_str("<ul>");
        call.calls.iter().for_each(|inner| frame(page, inner, result, names, left));
        page.push_str("</ul>");
    }
    page.push_str("</li>");
}

fn events(page: &mut String, result: &Simulated) {
    let logs = &result.outcome.logs;
    page.push_str("<h2>Events</h2><div class=\"card\">");
    if logs.is_empty() {
        page.push_str("<p class=\"dim\">None.</p></div>");
        return;
    }
    page.push_str("<table><tr><th>Contract</th><th>Event</th><th>Data</th></tr>");
    for log in logs.iter().take(LOGS_MAX) {
        let _ = write!(
            page,
            "<tr><td><code>{}</code></td><td>{}</td><td><code>{}</code></td></tr>",
            log.address,
            event(log),
            shown(&log.data)
        );
    }
    page.push_str("</table>");
    more(page, logs.len(), LOGS_MAX, "events");
    page.push_str("</div>");
}

/// The tokens' own events in words; of others the topics.
fn event(log: &EventLog) -> String {
    const APPROVAL: B256 = alloy::primitives::b256!("8c5be1e5ebec7d5bd14f71427d1e84f3dd0314c0f7b2291e5b200ac8c7c3b925");
    const APPROVAL_FOR_ALL: B256 =
        alloy::primitives::b256!("17307eab39ab6107e8899845ad3d59bd9653f200f220920489ca2b5937696c31");
    let name = match log.topics.first() {
        None => return "without a topic".to_owned(),
        Some(&TRANSFER) => "Transfer",
        Some(&APPROVAL) => "Approval",
        Some(&APPROVAL_FOR_ALL) => "ApprovalForAll",
        Some(_) => "",
    };
    let number = match (log.topics.as_slice(), log.data.len()) {
        ([_, _, _], 32) => Some(U256::from_be_slice(&log.data)),
        ([_, _, _, item], 0) => Some(U256::from_be_bytes(item.0)),
        _ => None,
    };
    match (name, log.topics.as_slice(), number) {
        ("", topics, _) | (_, topics, None) => {
            let known = if name.is_empty() { String::new() } else { format!("<span class=\"what\">{name}</span>") };
            let skipped = usize::from(!name.is_empty());
            topics.iter().skip(skipped).fold(known, |all, topic| all + &format!("<code class=\"data\">{topic}</code>"))
        }
        (name, topics, Some(number)) => {
            let party = |at: usize| topics.get(at).copied().map(Address::from_word).unwrap_or_default();
            let what = match name {
                "ApprovalForAll" => (!number.is_zero()).to_string(),
                _ => number.to_string(),
            };
            format!("<span class=\"what\">{name}</span> <code>({}, {}, {what})</code>", party(1), party(2))
        }
    }
}

fn more(page: &mut String, count: usize, shown: usize, what: &str) {
    if count > shown {
        let _ = write!(page, "<p class=\"dim\">… and {} more {what}.</p>", count - shown);
    }
}

fn shown(data: &[u8]) -> String {
    match data.get(..DATA_BYTES_MAX) {
        Some(start) if data.len() > DATA_BYTES_MAX => {
            format!("{}… ({} bytes)", hex::encode_prefixed(start), data.len())
        }
        _ => hex::encode_prefixed(data),
    }
}

/// 21,000
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn numbers_are_grouped() {
        let table = [(0, "0"), (999, "999"), (1_000, "1,000"), (21_000_000, "21,000,000")];
        for (number, text) in table {
            assert_eq!(grouped(number), text);
        }
    }

    proptest! {
        #[test]
        fn nothing_that_is_escaped_can_end_its_place(text in "\\PC*|[<>&\"'/a-z \u{202e}\n]*") {
            let safe = escape(&text);
            let harmless = !safe.contains(['<', '>', '"', '\'', '\u{202e}', '\n']);
            prop_assert!(harmless, "{}", safe);
        }
    }
}
