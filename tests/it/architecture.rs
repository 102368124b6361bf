//! What the layout promises, held against the sources as text: edges in their folders, pure files pure, no switch that signs
//! without the HSM, and a test for every class of failure that this milestone covers.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// A source file: its path from the repository's root, its text without comments, and the part before its tests.
struct Source {
    path: String,
    /// With comments blanked.
    code: String,
    lines_before_tests: usize,
}

impl Source {
    fn name(&self) -> &str {
        self.path.rsplit('/').next().unwrap()
    }

    fn under(&self, folder: &str) -> bool {
        self.path.starts_with(&format!("src/{folder}"))
    }

    /// The code without its unit tests.
    fn shipped(&self) -> &str {
        self.code.split("#[cfg(test)]").next().unwrap()
    }
}

fn sources_in(folder: &str) -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = Vec::new();
    let mut folders = vec![root.join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = std::fs::read_to_string(&path).unwrap();
                let lines_before_tests = text.lines().take_while(|line| !line.starts_with("#[cfg(test)]")).count();
                let code = text.lines().map(without_comment).collect::<Vec<_>>().join("\n");
                let path = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
                found.push(Source { path, code, lines_before_tests });
            }
        }
    }
    assert!(!found.is_empty(), "no sources in {folder}");
    found.sort_by(|a, b| a.path.cmp(&b.path));
    found
}

/// Good enough for these sources: `//` outside of a URL begins a comment.
fn without_comment(line: &str) -> &str {
    let begins = line.match_indices("//").map(|(at, _)| at).find(|at| !line[..*at].ends_with(':'));
    &line[..begins.unwrap_or(line.len())]
}

/// Whether `word` stands in the code as a whole word.
fn mentions(code: &str, word: &str) -> bool {
    let part_of_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    code.match_indices(word)
        .any(|(at, _)| !code[..at].ends_with(part_of_word) && !code[at + word.len()..].starts_with(part_of_word))
}

/// Every file that mentions `word` must be allowed, and every exception must still be one.
#[track_caller]
fn only_in(word: &str, allowed: impl Fn(&Source) -> bool, exceptions: &[(&str, &str)]) {
    let exceptions: BTreeMap<&str, &str> = exceptions.iter().copied().collect();
    let users: Vec<Source> =
        sources_in("src").into_iter().filter(|source| mentions(&source.code, word) && !allowed(source)).collect();
    let used: BTreeSet<&str> = users.iter().map(|source| source.path.as_str()).collect();
    let strangers: Vec<_> = used.iter().filter(|path| !exceptions.contains_key(**path)).collect();
    assert!(strangers.is_empty(), "{word} is used outside of its place: {strangers:?}");
    let stale: Vec<_> = exceptions.keys().filter(|path| !used.contains(**path)).collect();
    assert!(stale.is_empty(), "no exception for {word} is needed any more in {stale:?}");
}

#[test]
fn pkcs11_is_spoken_under_hsm_only() {
    only_in("cryptoki", |source| source.under("hsm/"), &[]);
}

/// `store.rs`, or a part of one that has become a folder.
fn is_store(source: &Source) -> bool {
    source.name() == "store.rs" || source.path.contains("/store/") || source.under("db/")
}

#[test]
fn statements_are_in_stores() {
    for word in ["query", "query_as", "query_scalar", "raw_sql"] {
        let path = format!("sqlx::{word}");
        only_in(&path, is_store, &[]);
    }
    only_in(
        "sqlx",
        is_store,
        &[
            ("src/ids.rs", "derives the columns' type for every id"),
            ("src/intents/state.rs", "derives the columns' type for the states, so that a state is spelled once"),
            ("src/access/principal.rs", "derives the column's type for the role"),
            ("src/access/mod.rs", "passes a connection on to its store, so that the caller's transaction holds"),
            (
                "src/vaults/secrets/mod.rs",
                "passes a connection on to its store, so that a grant and what it opens are read together",
            ),
            ("src/vaults/secrets/own.rs", "stores an agent's key in the transaction that makes the agent"),
            ("src/vaults/keys/provision.rs", "ends an agent's key in the transaction that deletes the agent"),
            ("src/vaults/cmek/mod.rs", "passes a connection on to its store, so that the held vault decides"),
            (
                "src/agents/identity.rs",
                "passes a connection on, so that keys are stored in the transaction that makes the agent",
            ),
            ("src/access/last_used.rs", "passes the pool on to its store"),
            ("src/orgs/mod.rs", "begins the one transaction of a bootstrap"),
            ("src/orgs/limits/mod.rs", "counts in the transaction of what is created"),
            ("src/orgs/members/mod.rs", "decides in the transaction that changes, with the rows held"),
            ("src/orgs/invitations/mod.rs", "invites and lets in, each in one transaction over several stores"),
            ("src/access/ip_rules/mod.rs", "passes the pool on to its store"),
            ("src/platform/mod.rs", "begins the one transaction of an operator's command"),
            ("src/platform/chains/mod.rs", "changes chains in one transaction, with the audit row"),
            ("src/metering/mod.rs", "passes the pool on to its store"),
            ("src/intents/commit.rs", "is T1: one transaction with a savepoint over several stores"),
            ("src/intents/replace/commit.rs", "is T1 of a replacement: one transaction over several stores"),
            ("src/intents/frozen.rs", "freezes and resumes lanes in one transaction, with the audit row"),
            ("src/intents/nonce.rs", "is a step of T1, on its connection"),
            ("src/intents/refuse.rs", "writes a refusal in T1's transaction, or in one of its own"),
            (
                "src/vaults/secrets/daemon.rs",
                "passes a connection on to its store, so that the caller's transaction holds",
            ),
            ("src/freezes/mod.rs", "counts a denial in the transaction that records it"),
            ("src/audit/failures.rs", "passes the pool on to its store"),
            ("src/app.rs", "holds the pool"),
            ("src/admin.rs", "opens the pool for a command"),
            ("src/keks/mod.rs", "begins the transactions of a rotation's steps over its own store and the HSM's"),
            ("src/keks/command.rs", "passes a command's pool on to the store"),
            ("src/keks/check.rs", "passes a command's pool on to the stores"),
            ("src/vaults/keys/destroy.rs", "begins the one transaction of a key's end"),
            ("src/http/problem.rs", "takes a lost connection as \"could not check\""),
            ("src/intents/error.rs", "takes a lost connection as \"could not check\""),
            ("src/intents/tracker/step.rs", "takes a lost connection as \"try again later\""),
        ],
    );
}

#[test]
fn threat_40_nothing_lowers_what_a_commit_waits_for() {
    let sets = |source: &Source| source.path == "src/db/primary.rs";
    let others = [
        ("src/dev/postgres.rs", "starts a server"),
        ("src/intents/store.rs", "T1 does not rely on what a pooler kept of its session"),
        ("src/intents/store/claims.rs", "a claim that is lost stops its T1, which looks for it"),
        ("src/intents/store/slots.rs", "what is not known to be sent is sent again"),
        ("src/intents/tracker/store.rs", "receipts are read again from the chain"),
    ];
    only_in("synchronous_commit", sets, &others);
    // Postgres calls a COMMIT that is cancelled while it waits for a standby a success.
    only_in("pg_cancel_backend", |_| false, &[]);
}

#[test]
fn the_audit_trail_is_written_in_one_place() {
    // What tells others of events, as webhooks do, reads them.
    for source in sources_in("src").iter().filter(|source| !source.under("audit/store")) {
        for statement in ["INTO audit_", "UPDATE audit_", "DELETE FROM audit_", "TRUNCATE audit_"] {
            assert!(!source.shipped().contains(statement), "{} has its own {statement}…", source.path);
        }
    }
}

#[test]
fn http_is_spoken_in_http_files_only() {
    let allowed =
        |source: &Source| source.path.contains("/http/") || source.name() == "http.rs" || source.path == "src/serve.rs";
    only_in("axum", allowed, &[]);
    only_in("tower_http", allowed, &[]);
    // Every route is in the table that the tests about all of them go by.
    only_in(
        "axum::routing",
        |source| source.path == "src/http/routes.rs",
        &[("src/simulate/server/http.rs", "is another server, whose only rule is its one key")],
    );
}

/// axum's own reply to a path or a query that it cannot read is no problem body: these are taken by `Ids`, and as a `Result`.
#[test]
fn what_cannot_be_read_from_a_url_is_a_problem_too() {
    let ours = |source: &&Source| !source.under("simulate/server/"); // That is another server, with errors of another form.
    for source in sources_in("src").iter().filter(ours) {
        let code = &source.code;
        let word_before = |at: usize| code[..at].ends_with(|c: char| c.is_ascii_alphanumeric());
        assert!(!code.match_indices("Path<").any(|(at, _)| !word_before(at)), "{} lets axum answer", source.path);
        let bare = code.match_indices("Query<").any(|(at, _)| !word_before(at) && !code[..at].ends_with("Result<"));
        assert!(!bare, "{} lets axum answer for a query", source.path);
    }
}

#[test]
fn others_are_asked_under_chain_simulate_and_outbound_only() {
    only_in(
        "reqwest",
        |source| source.under("chain/") || source.under("simulate/") || source.under("outbound/"),
        &[
            ("src/dev/chains.rs", "asks the anvils that it starts"),
            ("src/dev/demo.rs", "is a client of the daemon that it has started"),
            ("src/dev/serve.rs", "waits until the daemon that it starts is healthy"),
            ("src/telemetry/traces.rs", "sends spans to the operator's own collector"),
        ],
    );
}

#[test]
fn mail_is_sent_under_mail_only() {
    only_in(
        "lettre",
        |source| source.under("mail/"),
        &[("src/users/rules.rs", "takes what mail can be sent to for an address")],
    );
}

#[test]
fn humans_get_tokens_without_a_key_from_users_only() {
    only_in(
        "issue_to_human",
        |source| source.under("users/"),
        &[("src/access/http.rs", "makes the token, and looks up what it rests on")],
    );
}

#[test]
fn pure_files_import_no_edge() {
    const PURE: &[&str] = &[
        "rules.rs",
        "parse.rs",
        "guardrails.rs",
        "effects.rs",
        "known.rs",
        "walk.rs",
        "abi.rs",
        "window.rs",
        "violation.rs",
        "bound.rs",
        "frame.rs",
        "render.rs",
        "page.rs",
        "state.rs",
        "signature.rs",
        "tx.rs",
        "fees.rs",
        "money.rs",
        "glob.rs",
        "path.rs",
        "policy.rs",
        "view.rs",
        "address.rs",
        "net.rs",
        "proxies.rs",
        "certificate.rs",
        "assertion.rs",
        "table.rs",
    ];
    let pure = |source: &Source| PURE.contains(&source.name()) && !source.under("dev/");
    let files: Vec<Source> = sources_in("src").into_iter().filter(pure).collect();
    for name in PURE {
        assert!(files.iter().any(|source| source.name() == *name), "{name} is gone: mend this list");
    }
    for source in &files {
        for edge in ["tokio", "reqwest", "cryptoki", "axum", "sqlx"] {
            // A derive is a name in the database, not a conversation with it.
            let code = source.code.replace("sqlx::Type", "").replace("#[sqlx(", "");
            assert!(!mentions(&code, edge), "{} is pure and mentions {edge}", source.path);
        }
        for impure in ["SystemTime", "Instant::now", "now_utc", "clock::now", "std::env", "std::fs", "new_v4"] {
            assert!(!source.shipped().contains(impure), "{} is pure and asks {impure}", source.path);
        }
    }
}

#[test]
fn threat_35_there_is_no_test_mode_and_no_signer_in_software() {
    // Fragments, so that no spelling of a switch or of a library's signer slips through.
    const FORBIDDEN: &[&str] = &[
        "k256::ecdsa::SigningKey",
        "ecdsa::SigningKey",
        "sign_prehash",
        "PrehashSigner",
        "RandomizedSigner",
        "PrivateKeySigner",
        "LocalSigner",
        "signer_local",
        "sign_ecdsa",
        "sign_schnorr",
        "TxSigner",
        "SignerSync",
        "fake",
        "mock",
        "dummy_sign",
        "test_mode",
        "testmode",
        "TEST_MODE",
        "insecure",
        "skip_sign",
        "no_hsm",
        "NO_HSM",
        "software_sign",
        "cfg(feature",
        "cfg!(feature",
        "cfg(debug_assertions",
        "cfg!(debug_assertions",
        "cfg!(test",
    ];
    for source in sources_in("src") {
        for word in FORBIDDEN {
            assert!(
                !source.shipped().to_lowercase().contains(&word.to_lowercase()),
                "{} contains {word:?}",
                source.path
            );
        }
        // A scalar in memory is for deriving the public key of an import, in the one file that does it.
        if mentions(source.shipped(), "SecretKey") {
            let demo = source.path == "src/dev/demo.rs"; // Makes the demo key, to import it as anybody would.
            assert!(source.under("hsm/") || demo, "{} handles a private key", source.path);
        }
    }
    let manifest = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml")).unwrap();
    assert!(!manifest.contains("\n[features]"), "a feature could switch a rule off");
    for signer in ["signer-local", "signers", "signer-mnemonic", "\"ecdsa\""] {
        assert!(!manifest.contains(signer), "Cargo.toml asks for {signer}");
    }
}

#[test]
fn tokens_are_made_in_one_place() {
    only_in("jwt::sign", |_| false, &[("src/access/http.rs", "asks the organisation's address rules first")]);
}

#[test]
fn unsafe_code_is_in_one_file() {
    only_in("unsafe", |_| false, &[("src/hsm/vendor.rs", "mechanism numbers that the binding has no name for")]);
    only_in("unsafe_code", |_| false, &[("src/hsm/vendor.rs", "allows it there")]);
}

#[test]
fn files_are_short_enough_to_read() {
    /// Without the unit tests at the foot.
    const LINES_MAX: usize = 400;
    const LONGER: &[(&str, usize)] = &[
        // The face of the HSM, mostly documentation.
        ("src/hsm/mod.rs", 520),
    ];
    let sources = sources_in("src");
    for source in &sources {
        let most = LONGER.iter().find(|(path, _)| *path == source.path).map_or(LINES_MAX, |(_, most)| *most);
        let lines = source.lines_before_tests;
        assert!(lines <= most, "{} has {lines} lines before its tests, more than {most}", source.path);
    }
    for source in sources_in("tests/it") {
        assert!(source.lines_before_tests <= LINES_MAX, "{} has more than {LINES_MAX} lines", source.path);
    }
}

#[test]
fn every_class_of_failure_of_this_milestone_has_a_test() {
    /// Rows of the project's table of failures seen in other signers and vaults.
    const ROWS: &[u32] = &[
        1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30,
        31, 32, 33, 34, 35, 36, 37, 38, 39, 40, 41, 42, 43, 44, 45, 46, 47,
    ];
    let mut tested = BTreeSet::new();
    for source in sources_in("src").into_iter().chain(sources_in("tests/it")) {
        for (at, start) in source.code.match_indices(["fn ", "threat_"].concat().as_str()) {
            let digits: String = source.code[at + start.len()..].chars().take_while(char::is_ascii_digit).collect();
            assert_eq!(digits.len(), 2, "{}: a row is two digits", source.path);
            tested.insert(digits.parse::<u32>().unwrap());
        }
    }
    let untested: Vec<_> = ROWS.iter().filter(|row| !tested.contains(*row)).collect();
    assert!(untested.is_empty(), "no test is named for rows {untested:?}");
}

#[test]
fn nothing_is_left_out_of_a_test_run() {
    for source in sources_in("tests").into_iter().chain(sources_in("src")) {
        let ignored = ["#[", "ignore"].concat();
        assert!(!source.code.contains(&ignored), "{} skips a test", source.path);
    }
}
