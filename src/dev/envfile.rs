//! DIR/env: what a script sources to use the stack. Its presence says that the stack is up.

use std::fmt::Write as _;

/// `export NAME='value'` lines in the given order. Pure.
pub fn render(variables: &[(&str, String)], comments: &[String]) -> String {
    let mut text = String::from("# Written by `intentd dev` when it is up, removed when it stops. Use: . this-file\n");
    for comment in comments {
        let _ = writeln!(text, "# {comment}");
    }
    for (name, value) in variables {
        let _ = writeln!(text, "export {name}={}", quoted(value));
    }
    text
}

/// A word for a POSIX shell: in single quotes nothing is special but the single quote.
fn quoted(value: &str) -> String {
    format!("'{}'", value.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shell_reads_back_every_value() {
        let values = ["plain", "", "it's", "$HOME `id` \\ \"x\"", "two\nlines", "''"];
        for value in values {
            let text = render(&[("VALUE", value.to_owned())], &[]);
            let script = format!("{text}printf %s \"$VALUE\"");
            let output = std::process::Command::new("sh").args(["-c", &script]).output().unwrap();
            assert_eq!(String::from_utf8_lossy(&output.stdout), value);
        }
    }
}
