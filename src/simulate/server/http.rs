//! The simulator's routes, and the server itself.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use axum::extract::{FromRequest, Path, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq as _;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tower_http::catch_panic::CatchPanicLayer;
use uuid::Uuid;

use super::request::SimulateRequest;
use super::results::{Results, Saved};
use super::{BUNDLE_MAX, Refusal, Simulated, page, render, simulate};
use crate::chain::{Chain, Chains};
use crate::config::Config;
use crate::config::SimulatorConfig;
use crate::http::extract::{BodyFault, read_up_to};
use crate::simulate::names::{ABI_BYTES_MAX, Names, read_abi};
use crate::simulate::tenderly::Slug;

/// Largest request, in bytes.
const BODY_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Time for one request.
const DEADLINE: Duration = Duration::from_secs(30);
/// Most files of the ABI folder that are read.
const ABI_FILES_MAX: usize = 500;
const ACCESS_KEY: HeaderName = HeaderName::from_static("x-access-key");

struct Simulator {
    chains: Chains,
    account: Slug,
    project: Slug,
    /// SHA-256 of the key, so that the comparison takes as long for any key.
    key: [u8; 32],
    names: Names,
    results: Results,
    turns: Semaphore,
    style_policy: HeaderValue,
}

/// Serves until SIGINT or SIGTERM.
///
/// # Errors
/// Anything that keeps it from starting.
pub async fn serve(config: &Config, chains: Chains) -> anyhow::Result<()> {
    let own = &config.simulator;
    let simulator = Arc::new(Simulator::new(own, chains)?);
    let listener = TcpListener::bind(own.listen).await.with_context(|| format!("cannot listen on {}", own.listen))?;
    let address = listener.local_addr().context("no local address")?;
    if !address.ip().is_loopback() {
        tracing::warn!(%address, "listening beyond loopback without TLS of its own: put a TLS proxy in front");
    }
    crate::serve::announce(config.ready_file.as_deref(), &format!("http://{address}"))?;
    let stopping = CancellationToken::new();
    tokio::spawn(crate::serve::wait_for_signal(stopping.clone()));
    let service = router(simulator).into_make_service_with_connect_info::<SocketAddr>();
    axum::serve(listener, service).with_graceful_shutdown(stopping.cancelled_owned()).await.context("the server ended")
}

impl Simulator {
    fn new(config: &SimulatorConfig, chains: Chains) -> anyhow::Result<Self> {
        let key = config.key().context("cannot read `simulator.access_key_file`")?.context(
            "the simulator needs an access key: set INTENTD_SIMULATOR_ACCESS_KEY or `simulator.access_key_file`; clients send it as X-Access-Key",
        )?;
        let style = STANDARD.encode(Sha256::digest(page::STYLE));
        let policy = format!(
            "default-src 'none'; style-src 'sha256-{style}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        );
        Ok(Self {
            chains,
            account: config.account.clone(),
            project: config.project.clone(),
            key: Sha256::digest(key.expose()).into(),
            names: read_names(config)?,
            results: Results::new(config.saved_mb.saturating_mul(1024 * 1024)),
            turns: Semaphore::new(config.concurrency.clamp(1, Semaphore::MAX_PERMITS)),
            style_policy: HeaderValue::from_str(&policy).context("the page's policy")?,
        })
    }

    fn is_project(&self, account: &str, project: &str) -> bool {
        account == self.account.as_str() && project == self.project.as_str()
    }

    /// The chain that a request names, if it has a node.
    fn chain(&self, network_id: &str) -> Result<Arc<Chain>, Failed> {
        let chain = self.chains.iter().find(|chain| chain.spec().chain_id.0.to_string() == network_id);
        let with_node = chain.filter(|chain| chain.spec().has_node());
        with_node.ok_or_else(|| {
            Failed::new(StatusCode::BAD_REQUEST, "invalid_network", format!("network {network_id} is not supported"))
        })
    }

    /// Renders a result, and keeps it if it is to be kept.
    fn finish(&self, result: &Simulated, chain: &Chain) -> Value {
        let answer = render::answer(result, self.account.as_str(), self.project.as_str(), &self.names);
        if result.request.save || (result.request.save_if_fails && !result.outcome.succeeded()) {
            let page = page::render(result, &chain.spec().display_name, &self.names);
            self.results.save(result.id, Saved { json: answer.to_string(), page }, Instant::now());
        }
        answer
    }
}

/// The standard names, and those of the folder's ABIs.
fn read_names(config: &SimulatorConfig) -> anyhow::Result<Names> {
    let mut names = Names::standard();
    let Some(folder) = &config.abi_folder else { return Ok(names) };
    let shown = folder.display();
    let entries = std::fs::read_dir(folder).with_context(|| format!("cannot read the ABI folder {shown}"))?;
    let mut paths: Vec<_> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "json"));
    paths.sort();
    anyhow::ensure!(paths.len() <= ABI_FILES_MAX, "the ABI folder {shown} has more than {ABI_FILES_MAX} files");
    for path in paths {
        let name = path.display();
        let size = std::fs::metadata(&path).map_or(0, |meta| meta.len());
        // An artifact holds the bytecode too.
        anyhow::ensure!(size <= 16 * ABI_BYTES_MAX as u64, "the ABI file {name} is too long");
        let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read the ABI file {name}"))?;
        let abi: Value = serde_json::from_str(&text).with_context(|| format!("the ABI file {name} is not JSON"))?;
        for item in read_abi(&abi).with_context(|| format!("the ABI file {name}"))? {
            names.add(None, item);
        }
    }
    Ok(names)
}

fn router(simulator: Arc<Simulator>) -> Router {
    let project = Router::new()
        .route("/simulate", post(single))
        .route("/simulate-bundle", post(bundle))
        .route("/simulations/{id}", get(saved).post(saved))
        .layer(middleware::from_fn_with_state(Arc::clone(&simulator), require_key));
    Router::new()
        .nest("/api/v1/account/{account}/project/{project}", project)
        .route("/{account}/{project}/simulator/{id}", get(show))
        .route("/health", get(|| async { Json(json!({"status": "ok", "service": "intentd simulator"})) }))
        .fallback(|| async { Failed::new(StatusCode::NOT_FOUND, "not_found", "no such route").into_response() })
        .layer(CatchPanicLayer::custom(|_: Box<dyn std::any::Any + Send>| -> Response {
            tracing::error!("a handler panicked");
            Failed::new(StatusCode::INTERNAL_SERVER_ERROR, "internal_error", "an internal error").into_response()
        }))
        .with_state(simulator)
}

/// An error in Tenderly's shape.
struct Failed {
    status: StatusCode,
    slug: &'static str,
    message: String,
}

impl Failed {
    fn new(status: StatusCode, slug: &'static str, message: impl Into<String>) -> Self {
        Self { status, slug, message: message.into() }
    }
}

impl IntoResponse for Failed {
    fn into_response(self) -> Response {
        let error = json!({ "id": Uuid::new_v4(), "slug": self.slug, "message": self.message });
        let mut response = (self.status, Json(json!({ "error": error }))).into_response();
        if matches!(self.status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE) {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}

impl From<Refusal> for Failed {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Refused { slug, message } => Self::new(StatusCode::BAD_REQUEST, slug, message),
            Refusal::Unavailable(error) => {
                tracing::warn!(%error, "the node gave no usable answer");
                Self::new(StatusCode::SERVICE_UNAVAILABLE, "node_unavailable", error.to_string())
            }
        }
    }
}

/// The project must be ours, and the key right; who has no key learns nothing about the project.
async fn require_key(
    State(simulator): State<Arc<Simulator>>,
    Path(path): Path<std::collections::HashMap<String, String>>,
    headers: HeaderMap,
    request: Request,
    next: Next,
) -> Result<Response, Failed> {
    let key = headers.get(ACCESS_KEY).map(HeaderValue::as_bytes).unwrap_or_default();
    let given: [u8; 32] = Sha256::digest(key).into();
    if !bool::from(given.ct_eq(&simulator.key)) {
        return Err(Failed::new(StatusCode::UNAUTHORIZED, "unauthorized", "the X-Access-Key is missing or wrong"));
    }
    let part = |name: &str| path.get(name).map(String::as_str).unwrap_or_default();
    if !simulator.is_project(part("account"), part("project")) {
        return Err(Failed::new(StatusCode::NOT_FOUND, "resource_not_found", "there is no such project"));
    }
    Ok(next.run(request).await)
}

/// A turn, or 429; and an end to it.
async fn in_turn<T>(simulator: &Simulator, work: impl Future<Output = Result<T, Failed>>) -> Result<T, Failed> {
    let Ok(_turn) = simulator.turns.try_acquire() else {
        return Err(Failed::new(StatusCode::TOO_MANY_REQUESTS, "too_many_requests", "too many simulations at once"));
    };
    tokio::time::timeout(DEADLINE, work).await.unwrap_or_else(|_| {
        Err(Failed::new(StatusCode::SERVICE_UNAVAILABLE, "timeout", "the simulation took too long"))
    })
}

fn unreadable(error: impl std::fmt::Display) -> Failed {
    Failed::new(StatusCode::BAD_REQUEST, "invalid_request", error.to_string())
}

/// A body up to [`BODY_BYTES_MAX`].
struct Whole(Vec<u8>);

impl FromRequest<Arc<Simulator>> for Whole {
    type Rejection = Failed;

    async fn from_request(request: Request, _: &Arc<Simulator>) -> Result<Self, Failed> {
        read_up_to(request.into_body(), BODY_BYTES_MAX, DEADLINE, |_| true).await.map(Self).map_err(|fault| match fault
        {
            BodyFault::TooSlow => Failed::new(
                StatusCode::REQUEST_TIMEOUT,
                "request_timeout",
                "the body did not come in time: send it again, all at once".to_owned(),
            ),
            BodyFault::Broken | BodyFault::NoRoom => unreadable("the body could not be read to its end"),
            BodyFault::TooLarge => {
                let message = format!("the body is larger than {BODY_BYTES_MAX} bytes");
                Failed::new(StatusCode::PAYLOAD_TOO_LARGE, "payload_too_large", message)
            }
        })
    }
}

fn read_object(body: &[u8]) -> Result<Map<String, Value>, Failed> {
    serde_json::from_slice(body).map_err(|_| unreadable("the body must be one JSON object"))
}

async fn single(State(simulator): State<Arc<Simulator>>, Whole(body): Whole) -> Result<Json<Value>, Failed> {
    let request = SimulateRequest::read(&read_object(&body)?).map_err(unreadable)?;
    let chain = simulator.chain(&request.network_id)?;
    in_turn(&simulator, async {
        let results = simulate(&chain, vec![request]).await?;
        let result = results.first().ok_or_else(|| unreadable("nothing was simulated"))?;
        Ok(Json(simulator.finish(result, &chain)))
    })
    .await
}

async fn bundle(State(simulator): State<Arc<Simulator>>, Whole(body): Whole) -> Result<Json<Value>, Failed> {
    let body = read_object(&body)?;
    let Some(Value::Array(items)) = body.get("simulations") else {
        return Err(unreadable("simulations: must be an array"));
    };
    if items.is_empty() || items.len() > BUNDLE_MAX {
        return Err(unreadable(format!("simulations: must be 1 to {BUNDLE_MAX}")));
    }
    let read = |(index, item): (usize, &Value)| {
        let object = item.as_object().ok_or_else(|| unreadable(format!("simulations[{index}]: must be an object")))?;
        SimulateRequest::read(object).map_err(|error| unreadable(format!("simulations[{index}].{error}")))
    };
    let requests: Vec<SimulateRequest> = items.iter().enumerate().map(read).collect::<Result<_, _>>()?;
    let network_id = &requests[0].network_id;
    if requests.iter().any(|request| request.network_id != *network_id) {
        return Err(unreadable("simulations: all must be on one network"));
    }
    let chain = simulator.chain(network_id)?;
    in_turn(&simulator, async {
        let results = simulate(&chain, requests).await?;
        let answers: Vec<Value> = results.iter().map(|result| simulator.finish(result, &chain)).collect();
        Ok(Json(json!({ "simulation_results": answers })))
    })
    .await
}

fn not_kept() -> Failed {
    Failed::new(StatusCode::NOT_FOUND, "resource_not_found", "there is no such simulation, or not any more")
}

/// A saved result, as it was answered.
async fn saved(
    State(simulator): State<Arc<Simulator>>,
    Path(path): Path<std::collections::HashMap<String, String>>,
) -> Result<Response, Failed> {
    let id = path.get("id").and_then(|id| id.parse().ok()).ok_or_else(not_kept)?;
    let saved = simulator.results.get(id, Instant::now()).ok_or_else(not_kept)?;
    Ok(([(header::CONTENT_TYPE, "application/json")], saved.json.clone()).into_response())
}

/// A saved result for people. Its random id is what opens it: a browser sends no key.
async fn show(
    State(simulator): State<Arc<Simulator>>,
    Path((account, project, id)): Path<(String, String, String)>,
) -> Result<Response, Failed> {
    let id = id.parse().ok().filter(|_| simulator.is_project(&account, &project)).ok_or_else(not_kept)?;
    let saved = simulator.results.get(id, Instant::now()).ok_or_else(not_kept)?;
    let mut response = Html(saved.page.clone()).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_SECURITY_POLICY, simulator.style_policy.clone());
    for (name, value) in [
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CACHE_CONTROL, "private, no-store"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    Ok(response)
}
