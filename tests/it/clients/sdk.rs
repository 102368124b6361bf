//! The Python SDK `oneclaw`, as PyPI has it. Its tests are in `tests/clients/sdk`.

use serde_json::json;

use super::{owner_of_their_own, pytest, with_sign_up};
use crate::harness::daemon::Daemon;
use crate::harness::stack::{Options, Stack};

#[tokio::test]
async fn the_python_sdk_does_unchanged_everything_that_there_is_here() {
    let options = Options { chains: vec![("anvil", 31337)], env: vec![with_sign_up()], ..Options::default() };
    let stack = Stack::with(options).await;
    let mut env = owner_of_their_own(&stack).await;
    env.push(("ANVIL_RPC_URL", stack.chain().url()));

    // Somebody whose organisation may have one vault.
    crate::orgs::platform_admin(&stack);
    let limited = stack.organisation("limited").await;
    let human = stack.human(&limited, "owner").await;
    stack.owner.put(&format!("/v1/admin/organisations/{limited}/limits"), &json!({"vaults": 1})).await.expect(200);
    env.push(("INTENTD_LIMITED_USER_KEY", human.client.bearer.unwrap()));

    // A daemon that soon has enough.
    let mut command = stack.command();
    command.env("INTENTD_LIMITS_AUTH_BURST", "3");
    let slow = Daemon::start(command, &stack.install.root, "slow").await;
    env.push(("INTENTD_SLOW_URL", slow.url.clone()));

    pytest(&["sdk"], env).await;
}
