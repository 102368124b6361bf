//! The lines to several servers: every connection to one of them passes through a socket of this process's own, so that all of them can be
//! ended at once.
//!
//! When a machine vanishes, nothing ends what was asked of it: TCP waits for a quarter of an hour, and with it requests, turns of lanes and
//! the pool's places. Bytes are passed on as they come; TLS is between the driver and the server.

use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use sqlx::postgres::PgConnectOptions;
use tokio::io::{AsyncRead, AsyncWrite, copy, split};
use tokio::net::{TcpStream, UnixListener, UnixStream};
use tokio_util::sync::{CancellationToken, DropGuard};

/// How long a server may take to be connected to.
const PATIENCE: Duration = Duration::from_secs(2);

/// The folder of the sockets, which nobody else can enter. It goes with this.
pub(super) struct Folder(PathBuf);

impl Folder {
    pub(super) fn new() -> io::Result<Self> {
        // Short: the path of a socket has 107 bytes at most (103 elsewhere).
        let name = uuid::Uuid::new_v4().simple().to_string();
        let path = std::env::temp_dir().join(format!("intentd-{}", &name[..12]));
        std::fs::DirBuilder::new().mode(0o700).create(&path)?;
        Ok(Self(path))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Where a server is.
enum Place {
    Host(String, u16),
    Socket(PathBuf),
}

/// The way to one server, shut at first.
pub(super) struct Line {
    state: Arc<Mutex<Option<CancellationToken>>>,
    /// How the driver connects through it.
    options: PgConnectOptions,
    _listens: DropGuard,
}

impl Line {
    /// Listens for the driver, as number `index` in `folder`.
    pub(super) fn new(folder: &Folder, index: u16, to: &PgConnectOptions) -> io::Result<Self> {
        // A host that is a path is a folder of sockets too.
        let theirs = to.get_socket().cloned().or_else(|| to.get_host().starts_with('/').then(|| to.get_host().into()));
        let place = match theirs {
            Some(theirs) => Place::Socket(theirs.join(format!(".s.PGSQL.{}", to.get_port()))),
            None => Place::Host(to.get_host().to_owned(), to.get_port()),
        };
        let listener = UnixListener::bind(folder.0.join(format!(".s.PGSQL.{index}")))?;
        let state: Arc<Mutex<Option<CancellationToken>>> = Arc::default();
        let dropped = CancellationToken::new();
        let (seen, until, place) = (Arc::clone(&state), dropped.clone(), Arc::new(place));
        tokio::spawn(async move { until.run_until_cancelled(serve(&listener, &seen, &place)).await });
        // The host's name stays: it is what a certificate is held against.
        let options = to.clone().socket(&folder.0).port(index);
        Ok(Self { state, options, _listens: dropped.drop_guard() })
    }

    pub(super) fn options(&self) -> &PgConnectOptions {
        &self.options
    }

    /// Lets connections through, from now on.
    pub(super) fn open(&self) {
        self.state.lock().get_or_insert_default();
    }

    /// Ends all connections, and each that still comes.
    pub(super) fn shut(&self) {
        if let Some(open) = self.state.lock().take() {
            open.cancel();
        }
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.shut();
    }
}

async fn serve(listener: &UnixListener, state: &Mutex<Option<CancellationToken>>, place: &Arc<Place>) {
    loop {
        let Ok((near, _)) = listener.accept().await else {
            // No more files, as a rule.
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let open = state.lock().clone();
        if let Some(open) = open {
            let place = Arc::clone(place);
            tokio::spawn(async move { open.run_until_cancelled(carry(near, &place)).await });
        }
    }
}

/// Returns when either end hangs up, or the server is not there: the driver sees its connection end.
async fn carry(near: UnixStream, place: &Place) -> io::Result<()> {
    match place {
        Place::Host(host, port) => {
            let far = tokio::time::timeout(PATIENCE, TcpStream::connect((host.as_str(), *port))).await??;
            far.set_nodelay(true)?;
            pass(near, far).await
        }
        Place::Socket(path) => pass(near, tokio::time::timeout(PATIENCE, UnixStream::connect(path)).await??).await,
    }
}

async fn pass(mut near: UnixStream, far: impl AsyncRead + AsyncWrite) -> io::Result<()> {
    let (mut from_near, mut to_near) = near.split();
    let (mut from_far, mut to_far) = split(far);
    tokio::select! {
        done = copy(&mut from_near, &mut to_far) => done.map(|_| ()),
        done = copy(&mut from_far, &mut to_near) => done.map(|_| ()),
    }
}
