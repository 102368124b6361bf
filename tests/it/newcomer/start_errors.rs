//! What keeps the stack from starting is one sentence and a non-zero exit, and leaves nothing running.

use super::{State, all_text, output};

#[test]
fn threat_39_a_stack_that_cannot_start_says_why_in_one_sentence() {
    type Change = fn(&State, &mut std::process::Command);
    let cases: [(&str, Change, &str); 6] = [
        (
            "an unknown chain",
            |_, dev| {
                dev.args(["--local", "bsae"]);
            },
            "--local bsae: there is no such chain; there are: ethereum, base",
        ),
        (
            "no anvil",
            |_, dev| {
                dev.args(["--anvil-bin", "/nowhere/anvil"]);
            },
            "anvil (/nowhere/anvil) is not installed",
        ),
        (
            "somebody else's folder",
            |state, _| {
                std::fs::create_dir(state.path()).unwrap();
                std::fs::write(state.path().join("thesis.txt"), "words").unwrap();
            },
            "holds files that are not a dev stack's",
        ),
        ("a file in the folder's place", |state, _| std::fs::write(state.path(), "").unwrap(), "cannot"),
        (
            "an address that is not ours",
            |_, dev| {
                dev.args(["--listen", "192.0.2.1:80"]);
            },
            "cannot listen on 192.0.2.1:80",
        ),
        (
            "a database of another Postgres",
            |state, _| {
                std::fs::create_dir_all(state.path().join("postgres/data")).unwrap();
                std::fs::write(state.path().join("lock"), "").unwrap();
                std::fs::write(state.path().join("postgres.path"), state.path().join("postgres").display().to_string())
                    .unwrap();
                std::fs::write(state.path().join("postgres/data/PG_VERSION"), "9\n").unwrap();
            },
            "PostgreSQL 9, which made this database, is not installed",
        ),
    ];
    for (what, change, expected) in cases {
        let state = State::new();
        let mut dev = state.dev();
        change(&state, &mut dev);
        let ended = output(dev);
        let text = all_text(&ended);
        assert_eq!(ended.status.code(), Some(1), "{what}: {text}");
        assert!(text.contains("intentd: ") && text.contains(expected), "{what}: {text}");
        assert!(!text.contains("panicked"), "{what}: {text}");
        assert!(!state.path().join("env").exists(), "{what}");
        let children = std::fs::read_to_string(state.path().join("children")).unwrap_or_default();
        assert_eq!(children, "", "{what}: something was left running");
    }
}

#[test]
fn a_folder_in_use_is_refused_and_its_stack_is_named() {
    let state = State::new();
    let stack = state.up(state.dev());
    let second = output(state.dev());
    let text = all_text(&second);
    assert_eq!(second.status.code(), Some(1), "{text}");
    assert!(text.contains(&format!("(process {})", stack.child.id())), "{text}");
    assert!(state.path().join("env").exists(), "the running stack's env file was removed");
}
