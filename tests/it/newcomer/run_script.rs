//! `anvil/run`, the first command of a newcomer.

use super::{State, all_text, output};

/// The value of a line `   name   value` of the shown receipt.
fn shown<'a>(text: &'a str, name: &str) -> &'a str {
    let mut lines = text.lines().filter_map(|line| line.trim().split_once(' '));
    lines.find(|(field, _)| *field == name).unwrap_or_else(|| panic!("no {name}: {text}")).1.trim()
}

#[test]
fn two_runs_in_a_row_show_two_mined_receipts_of_one_signer() {
    let state = State::new();
    let run = || {
        let mut command = state.run_script();
        // From any folder, by any path.
        command.arg("--once").current_dir("/");
        let output = output(command);
        let text = all_text(&output);
        assert!(output.status.success(), "{text}");
        text
    };
    let (first, second) = (run(), run());
    for (text, nonce) in [(&first, "0"), (&second, "1")] {
        assert_eq!(shown(text, "receipt_status"), "success");
        assert_eq!(shown(text, "nonce"), nonce);
        assert_eq!(shown(text, "chain_id"), "8453");
    }
    assert_eq!(shown(&first, "from"), shown(&second, "from"));
    assert_ne!(shown(&first, "tx_hash"), shown(&second, "tx_hash"));
    assert!(!state.path().join("env").exists(), "a stopped stack has no env file");
}

#[test]
fn a_run_beside_a_running_stack_uses_it_and_leaves_it_up() {
    let state = State::new();
    let mut stack = state.up(state.dev());
    let mut command = state.run_script();
    command.arg("--once");
    let beside = output(command);
    let text = all_text(&beside);
    assert!(beside.status.success() && text.contains("already running"), "{text}");
    assert_eq!(shown(&text, "receipt_status"), "success");
    assert!(stack.child.try_wait().unwrap().is_none(), "{}", stack.output());
}

#[test]
fn the_key_is_in_no_process_listing_of_the_script() {
    let script = include_str!("../../../anvil/run");
    let uses: Vec<&str> = script.lines().filter(|line| line.contains("$INTENTD_AGENT_KEY")).collect();
    assert_eq!(uses.len(), 1, "{uses:?}");
    assert!(uses[0].trim_start().starts_with("printf "), "the shell's own printf starts no process: {uses:?}");
}
