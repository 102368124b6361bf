//! An nginx of a test's own, by the configuration that operators are shown: `tests/clients/nginx.conf`.

use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::harness::tls::Identity;

/// The example.
pub const EXAMPLE: &str = include_str!("../../clients/nginx.conf");

/// A running nginx, ended when dropped.
pub struct Nginx {
    child: Child,
    folder: tempfile::TempDir,
    pub url: String,
}

impl Nginx {
    /// The example with `identity` as its certificate and `changes` to its text, before the daemon at `upstream` (`host:port`).
    pub fn start(identity: &Identity, upstream: &str, changes: &[(&str, &str)]) -> Self {
        // Somebody may take the free port before nginx does.
        for _ in 0..5 {
            match Self::try_start(identity, upstream, changes) {
                Ok(nginx) => return nginx,
                Err(log) => assert!(log.contains("Address already in use"), "nginx ended: {log}"),
            }
        }
        panic!("no free port for nginx");
    }

    /// What it has logged, if it ended at once.
    fn try_start(identity: &Identity, upstream: &str, changes: &[(&str, &str)]) -> Result<Self, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name).display().to_string();
        std::fs::write(path("cert.pem"), &identity.pem).unwrap();
        std::fs::write(path("key.pem"), identity.key_pem()).unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let ours = [
            ("listen 443 ssl http2;", format!("listen 127.0.0.1:{port} ssl http2;")),
            ("/etc/intentd/tls/fullchain.pem", path("cert.pem")),
            ("/etc/intentd/tls/privkey.pem", path("key.pem")),
            ("/var/log/nginx/intentd.log", path("access.log")),
            ("server 127.0.0.1:8787;", format!("server {upstream};")),
        ];
        let ours = ours.iter().map(|(from, to)| (*from, to.as_str()));
        let mut site = EXAMPLE.to_owned();
        for (from, to) in changes.iter().copied().chain(ours) {
            assert!(site.contains(from), "the example has no {from}");
            site = site.replace(from, to);
        }
        let unused = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"];
        let unused: String = unused.iter().map(|kind| format!("{kind}_temp_path {};\n", path(kind))).collect();
        let whole =
            format!("daemon off; master_process off; pid {};\nevents {{}}\nhttp {{\n{unused}{site}}}\n", path("pid"),);
        std::fs::write(path("nginx.conf"), whole).unwrap();
        let mut child = Command::new(binary())
            .args(["-p", &path(""), "-c", &path("nginx.conf"), "-e", &path("error.log")])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let deadline = Instant::now() + Duration::from_secs(20);
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            if child.try_wait().unwrap().is_some() {
                return Err(std::fs::read_to_string(path("error.log")).unwrap_or_default());
            }
            assert!(Instant::now() < deadline, "nginx does not listen");
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(Self { child, folder, url: format!("https://127.0.0.1:{port}") })
    }

    /// A file in its folder: `cert.pem`, `access.log`, `error.log`.
    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn binary() -> PathBuf {
    let on_path = std::env::var_os("PATH").unwrap_or_default();
    let on_path: Vec<_> = std::env::split_paths(&on_path).map(|folder| folder.join("nginx")).collect();
    let usual = [Path::new("/usr/sbin/nginx").to_owned()];
    let found = on_path.into_iter().chain(usual).find(|path| path.is_file());
    found.expect("nginx is not installed: run anvil/test once")
}

/// Passes connections on, and counts them.
pub struct Counted {
    pub address: String,
    connections: Arc<AtomicUsize>,
    task: tokio::task::JoinHandle<()>,
}

impl Counted {
    pub async fn before(upstream: &str) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let connections = Arc::new(AtomicUsize::new(0));
        let (counter, upstream) = (Arc::clone(&connections), upstream.to_owned());
        let task = tokio::spawn(async move {
            while let Ok((mut near, _)) = listener.accept().await {
                counter.fetch_add(1, Ordering::SeqCst);
                let upstream = upstream.clone();
                tokio::spawn(async move {
                    if let Ok(mut far) = tokio::net::TcpStream::connect(upstream).await {
                        let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
                    }
                });
            }
        });
        Self { address, connections, task }
    }

    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.task.abort();
    }
}
