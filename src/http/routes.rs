//! A router that knows its routes. Whatever is served was put here, so what is tested about every route (who may call it, which ids it
//! takes) is derived from the same table and leaves none out.
//!
//! Features write it as they would write axum's own, and give with each handler what documents it:
//! `Routes::new().route("/v1/vaults", post(create, api::create()).get(list, api::list()))`.

use std::convert::Infallible;
use std::fmt;
use std::sync::Arc;

use axum::Router;
use axum::handler::Handler;
use axum::http::Method;
use axum::routing::MethodRouter;

use super::api::Doc;
use crate::app::App;

/// One method of one path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// The method. A `GET` of a page or of health also answers `HEAD`, see `router`.
    pub method: Method,
    /// The path, with its parameters in braces: `/v1/vaults/{vault_id}`.
    pub path: &'static str,
}

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.method, self.path)
    }
}

/// Routes, and the table of them.
#[derive(Default)]
pub struct Routes {
    router: Router<Arc<App>>,
    table: Vec<Route>,
    /// Of the same order as the table.
    docs: Vec<Doc>,
}

impl Routes {
    /// None yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// With the handlers of a path.
    #[must_use]
    pub fn route(mut self, path: &'static str, methods: Methods) -> Self {
        for (method, doc) in methods.names {
            self.table.push(Route { method, path });
            self.docs.push(doc);
        }
        self.router = self.router.route(path, methods.router);
        self
    }

    /// With all of another feature's.
    #[must_use]
    pub fn merge(mut self, other: Self) -> Self {
        self.table.extend(other.table);
        self.docs.extend(other.docs);
        self.router = self.router.merge(other.router);
        self
    }

    /// What there is.
    #[must_use]
    pub fn table(&self) -> &[Route] {
        &self.table
    }

    /// What there is, with what documents it.
    pub fn documented(&self) -> impl Iterator<Item = (&Route, &Doc)> {
        self.table.iter().zip(&self.docs)
    }

    /// The router.
    pub fn into_router(self) -> Router<Arc<App>> {
        self.router
    }
}

/// The handlers of one path, by method.
pub struct Methods {
    router: MethodRouter<Arc<App>, Infallible>,
    names: Vec<(Method, Doc)>,
}

macro_rules! methods {
    ($($name:ident $method:ident),*) => {
        $(
            #[doc = concat!("A path that answers `", stringify!($method), "`.")]
            pub fn $name<H: Handler<T, Arc<App>>, T: 'static>(handler: H, doc: Doc) -> Methods {
                Methods { router: axum::routing::$name(handler), names: vec![(Method::$method, doc)] }
            }
        )*

        impl Methods {
            $(
                #[doc = concat!("Answers `", stringify!($method), "` too.")]
                #[must_use]
                pub fn $name<H: Handler<T, Arc<App>>, T: 'static>(mut self, handler: H, doc: Doc) -> Self {
                    self.router = self.router.$name(handler);
                    self.names.push((Method::$method, doc));
                    self
                }
            )*
        }
    };
}

methods!(get GET, post POST, put PUT, patch PATCH, delete DELETE);
