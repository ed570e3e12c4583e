//! Every route, once: the router is made of this table, and so is its description.

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::routing::{MethodRouter, get, patch, post, put};

use super::{
    Admin, audit, config, dead_letters, erase, events, explain, health, hello, journal, listing, log, metrics, openapi,
    overview, page, policy, prune, report, tap, tenants, uncompensated,
};

/// One method of one path.
pub(super) struct Route {
    pub(super) method: &'static str,
    pub(super) path: &'static str,
    pub(super) summary: &'static str,
    /// The names of [parameters](openapi::PARAMETERS) of its query.
    pub(super) query: &'static [&'static str],
    pub(super) body: Body,
    pub(super) status: u16,
    pub(super) answer: Answer,
    mount: fn() -> MethodRouter<Admin>,
}

/// What is sent with it.
#[derive(Debug, Clone, Copy)]
pub(super) enum Body {
    None,
    /// JSON of this schema.
    Json(&'static str),
    /// Bytes as they are: a frame.
    Bytes,
}

/// What it answers with.
#[derive(Debug, Clone, Copy)]
pub(super) enum Answer {
    /// JSON of this schema.
    Json(&'static str),
    /// A JSON array of it.
    Array(&'static str),
    /// The entries of the log: a line each, or server-sent events.
    Log,
    /// JSON of this schema, a line each.
    Lines(&'static str),
    /// Bytes that come as they are read.
    Bytes,
    /// Text of one of these types.
    Text(&'static [&'static str]),
}

use Answer::{Array, Bytes, Json, Lines, Log, Text};

/// The largest body of a request in JSON, in bytes.
const LARGEST: usize = 1 << 20;

const fn ask(
    method: &'static str,
    path: &'static str,
    summary: &'static str,
    answer: Answer,
    mount: fn() -> MethodRouter<Admin>,
) -> Route {
    Route { method, path, summary, query: &[], body: Body::None, status: 200, answer, mount }
}

impl Route {
    const fn query(self, query: &'static [&'static str]) -> Self {
        Self { query, ..self }
    }

    const fn body(self, schema: &'static str) -> Self {
        Self { body: Body::Json(schema), ..self }
    }
}

/// All there are.
pub(super) const ROUTES: &[Route] = &[
    ask("get", "/healthz", "Whether the process is alive", Json("Alive"), || get(health::alive)),
    ask("get", "/readyz", "Whether the daemon does its work; 503 where it does not", Json("Ready"), || {
        get(health::ready)
    }),
    ask("get", "/metrics", "The numbers of the system, for Prometheus", Text(metrics::TYPES), || get(metrics::show)),
    ask("get", "/", "The page for a browser", Text(&["text/html"]), || get(page::index)),
    ask("get", "/page/{file}", "One of its files", Text(page::TYPES), || get(page::file)),
    ask("get", "/v1/overview", "The whole system at one moment, a row a tenant", Json("Overview"), || {
        get(overview::show)
    })
    .query(&["tenants"]),
    ask("get", "/v1/config", "The configuration that it runs by", Json("Config"), || get(config::show)),
    ask("get", "/openapi.json", "This document", Json("OpenApi"), || get(openapi::show)),
    ask("get", "/v1", "Which program answers", Json("Hello"), || get(hello)),
    ask("get", "/v1/tenants", "The tenants, in the store and running, a page at a time", Array("Tenant"), || {
        get(listing::list)
    })
    .query(&["limit", "cursor", "sort", "order", "name", "status", "muted"]),
    Route {
        status: 201,
        ..ask("post", "/v1/tenants", "Brings a tenant up before its first event", Json("Tenant"), || {
            post(tenants::spawn)
        })
    }
    .body("SpawnRequest"),
    ask("get", "/v1/tenants/{id}", "One tenant", Json("Tenant"), || get(tenants::show)),
    ask("get", "/v1/tenants/{id}/explain", "All that is known of one tenant", Json("Explanation"), || {
        get(explain::show)
    }),
    ask("get", "/v1/tenants/{id}/events", "Its stored events, in order, one a line", Bytes, || get(events::show))
        .query(&["since", "until", "limit", "store", "follow", "as_events"]),
    ask("get", "/v1/tenants/{id}/policy", "The rules it lives by now", Json("Policy"), || get(policy::show)),
    ask("patch", "/v1/tenants/{id}/policy", "Changes rules until the process ends", Json("PolicyChanged"), || {
        patch(policy::change)
    })
    .body("PolicyRequest"),
    ask(
        "post",
        "/v1/tenants/{id}/erase",
        "Erases what is kept of it in journal, stores and dead letters",
        Json("Erased"),
        || post(erase::erase),
    )
    .body("EraseRequest"),
    ask("post", "/v1/tenants/{id}/{order}", "Tells it something; answers once that is done", Json("Ordered"), || {
        post(tenants::order)
    })
    .query(&["within"]),
    ask(
        "get",
        "/v1/log",
        "The supervisor log: the newest entries, and with follow=true or as server-sent events what comes",
        Log,
        || get(log::show),
    )
    .query(&["tenant", "what", "since", "last", "brief", "sentences", "follow"]),
    ask("get", "/v1/failures", "What failed so far, by tenant and code", Json("FailureReport"), || get(report::show)),
    ask("get", "/v1/report", "The same", Json("FailureReport"), || get(report::show)),
    ask("get", "/v1/uncompensated", "What could not be undone yet", Array("Uncompensated"), || {
        get(uncompensated::list)
    })
    .query(&["tenant"]),
    ask("post", "/v1/prune", "Prunes what is due by the rules of retention, now", Json("Pruned"), || {
        post(prune::prune)
    })
    .body("PruneRequest"),
    ask("get", "/v1/dead-letters", "The newest dead letters that match, oldest first", Array("Letter"), || {
        get(dead_letters::list)
    })
    .query(&["tenant", "reason", "since", "until", "replayed", "limit"]),
    ask("post", "/v1/dead-letters/replay", "Brings dead letters back the normal way in", Json("ReplayReport"), || {
        post(dead_letters::replay)
    })
    .body("ReplayRequest"),
    ask("post", "/v1/dead-letters/purge", "Forgets dead letters", Json("Purged"), || post(dead_letters::purge))
        .body("PurgeRequest"),
    ask("post", "/v1/dead-letters/export", "Dead letters, one a line", Bytes, || post(dead_letters::export))
        .body("ExportRequest"),
    // An id has slashes in it.
    ask("get", "/v1/dead-letters/{letter}", "One dead letter", Json("Letter"), || get(dead_letters::show)),
    Route {
        body: Body::Bytes,
        ..ask("put", "/v1/dead-letters/{letter}", "Edits it: the request is its new body", Json("Letter"), || {
            put(dead_letters::edit)
        })
    },
    ask("get", "/v1/audit", "Whether the accounting holds", Json("Audit"), || get(audit::show)),
    ask("get", "/v1/journal", "What the durable journal holds", Json("JournalSummary"), || get(journal::summary)),
    ask("get", "/v1/journal/verify", "Whether it is whole", Json("Verdict"), || get(journal::verify)),
    ask("get", "/v1/journal/export", "Its unsettled events, one a line", Bytes, || get(journal::export))
        .query(&["tenant", "as_export"]),
    ask(
        "get",
        "/v1/tap",
        "A sample of the events as they are accepted, until the daemon ends",
        Lines("Tapped"),
        || get(tap::show),
    )
    .query(&["tenant", "limit", "rate", "redact"]),
];

/// The routes of the table; a body in bytes may be as large as a frame.
pub(super) fn router(largest_frame: usize) -> Router<Admin> {
    let mount = |router: Router<Admin>, route: &Route| {
        let largest = if matches!(route.body, Body::Bytes) { largest_frame } else { LARGEST };
        let mounted = (route.mount)().layer(DefaultBodyLimit::max(largest));
        router.route(&route.path.replace("{letter}", "{*letter}"), mounted)
    };
    ROUTES.iter().fold(Router::new(), mount)
}
