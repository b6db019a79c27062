//! The admin API: everything under `/admin`, for agents, operators and the command line.
//!
//! Every request carries `Authorization: Bearer <FRONTDESK_ADMIN_TOKEN>`. Without it the answer is 401 for every path and
//! method alike, so nobody learns what exists. The token is compared by its SHA-256 digest in constant time.
//!
//! - **Who acts**: `X-Frontdesk-Agent` names the person (at most 64 bytes, printable) in the audit log. Taking over,
//!   replying and handing back need it, because Meta lets only a person answer late; elsewhere `admin` is the default.
//! - **Errors** are `{"error":{"code","message"}}`: the code is stable and for programs, the message is for people.
//! - **Lists** take `limit` (1 to 200, default 50) and `before`, which is the `next_before` of the page before;
//!   `next_before` is null on the last page.
//! - **Changes** are written to the audit log in the transaction that makes them, without the customer's words.
//!
//! | route | does |
//! |-------|------|
//! | `GET /admin/status` | this replica, backlog, outbox, tickets, Pages, engines |
//! | `GET /admin/policies` | what each chain and each replica runs, the latest revisions and changes of state |
//! | `GET /admin/policies/{chain}/revisions/{id}` | a revision as a bundle |
//! | `POST /admin/policies/{chain}/revisions`, `…/promote`, `…/activate`, `…/canary`, `…/shadow`, `…/rollback`, `…/unquarantine` | publish a bundle; move a revision |
//! | `GET /admin/components/{digest}` | a stored component by its SHA-256 digest; `bytes=none` says only whether it is there |
//! | `GET /admin/policies/{chain}/shadow` | what the chain's shadow would have changed, in codes and numbers |
//! | `GET /admin/audit` | who did what |
//! | `GET /admin/conversations`, `GET /admin/conversations/{id}` | conversations; one with transcript, ticket, window |
//! | `GET /admin/conversations/{id}/turns`, `…/by-psid/{page_id}/{psid}/turns` | what was decided, and why |
//! | `POST /admin/conversations/{id}/takeover`, `…/reply`, `…/handback` | see [`crate::handover`] |
//! | `GET /admin/turns` | the whole records of all turns, oldest first, for replay; `form=masked` without words |
//! | `GET /admin/turns/{turn_id}`, `…/by-mid/{page_id}/{mid}` | the whole record of one turn: by its id, by a message that it read or sent |
//! | `POST /admin/turns/{turn_id}/redraft` | what the host's model would draft now for another plan; changes nothing |
//! | `GET /admin/tickets`, `GET /admin/tickets/{id}`, `POST …/resolve` | matters for people |
//! | `GET /admin/outbox/unknown`, `…/failed`, `POST /admin/outbox/{id}/settle` | sends in doubt |
//! | `POST /admin/inbox/missing` | which of some messages (`page_id`, `mids`) never arrived |
//! | `GET /admin/pages`, `POST /admin/pages/{id}/resume` | whether a Page may send, and what Meta says of it |
//! | `POST /admin/pages`, `…/{id}/disconnect`, `…/{id}/check` | connect a Page (again), end that, ask Meta about it now |
//! | `POST /admin/people/{page_id}/{psid}/erase`, `GET /admin/erasures`, `…/{code}`, `POST …/{code}/retry` | forget a person: see [`crate::privacy`] |
//! | `/admin/knowledge…` | documents in, out, and searched |
//! | `POST /admin/knowledge/jobs/file`, `POST /admin/knowledge/websites` | the same as a job: a file; a website by its sitemaps |
//! | `GET /admin/knowledge/jobs`, `…/{id}`, `POST …/{id}/cancel` | how far jobs are, and what came of them; stop one |
//! | `GET /admin/knowledge/{id}`, `POST …/reveal`, `POST …/raw` | a document's versions; what was taken out of its text, and its file, for those who may |
//! | `GET /admin/learning`, `POST …/{id}/approve`, `…/reject`, `GET /admin/golden/suggestions` | entries of the FAQ that people's answers propose; golden questions out of thumbs |
//! | `POST /admin/golden/runs`, `GET …`, `GET …/{id}?before=ID` | golden questions: ask them now; earlier runs; one, compared with another |

mod access;
mod conversations;
mod erasures;
mod error;
mod golden;
mod inbox;
mod jobs;
mod knowledge;
mod learning;
mod outbox;
mod pages;
mod policies;
mod redraft;
mod request;
mod shadow;
mod status;
mod tickets;
mod turns;
mod versions;

use std::sync::Arc;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::http::{HeaderValue, header};
use axum::middleware;
use axum::response::Response;
use axum::routing::{any, delete, get, post};

use crate::app::App;
use access::TokenDigest;
use error::AdminError;

/// Largest JSON body of an ordinary request, in bytes; an agent's longest reply fits several times.
const BODY_BYTES_MAX: usize = 64 * 1024;

/// Everything under `/admin`, behind the token.
pub fn router(app: Arc<App>) -> Router {
    let token = TokenDigest::of(&app.secrets.admin_token);
    let routes = Router::new()
        .route("/status", get(status::status))
        .route("/policies", get(policies::list))
        .route("/policies/{chain}/revisions/{id}", get(policies::revision))
        .route("/components/{digest}", get(policies::component))
        .route("/policies/{chain}/promote", post(policies::activate))
        .route("/policies/{chain}/activate", post(policies::activate))
        .route("/policies/{chain}/canary", post(policies::canary))
        .route("/policies/{chain}/shadow", get(shadow::report).post(policies::shadow))
        .route("/policies/{chain}/rollback", post(policies::roll_back))
        .route("/policies/{chain}/unquarantine", post(policies::unquarantine))
        .route("/audit", get(status::audit))
        .route("/conversations", get(conversations::list))
        .route("/conversations/{id}", get(conversations::show))
        .route("/conversations/{id}/turns", get(turns::of_conversation))
        .route("/conversations/by-psid/{page_id}/{psid}/turns", get(turns::of_psid))
        .route("/conversations/{id}/takeover", post(conversations::take_over))
        .route("/conversations/{id}/reply", post(conversations::reply))
        .route("/conversations/{id}/handback", post(conversations::hand_back))
        .route("/conversations/{id}/thread", get(conversations::thread).post(conversations::control_thread))
        .route("/turns", get(turns::list))
        .route("/turns/{turn_id}", get(turns::show))
        .route("/turns/by-mid/{page_id}/{mid}", get(turns::by_mid))
        .route("/tickets", get(tickets::list))
        .route("/tickets/{id}", get(tickets::show))
        .route("/tickets/{id}/resolve", post(tickets::resolve))
        .route("/outbox/unknown", get(outbox::unknown))
        .route("/outbox/failed", get(outbox::failed))
        .route("/outbox/{id}/settle", post(outbox::settle))
        .route("/inbox/missing", post(inbox::missing))
        .route("/pages", get(pages::list).post(pages::connect))
        .route("/pages/{id}/disconnect", post(pages::disconnect))
        .route("/pages/{id}/check", post(pages::check))
        .route("/pages/{id}/resume", post(pages::resume))
        .route("/people/{page_id}/{psid}/erase", post(erasures::erase))
        .route("/erasures", get(erasures::list))
        .route("/erasures/{code}", get(erasures::show))
        .route("/erasures/{code}/retry", post(erasures::retry))
        .route("/golden/runs/{id}", get(golden::show))
        .route("/golden/suggestions", get(learning::suggestions))
        .route("/learning", get(learning::list))
        .route("/learning/{id}/approve", post(learning::approve))
        .route("/learning/{id}/reject", post(learning::reject))
        .route("/knowledge", get(knowledge::list))
        .route("/knowledge/search", get(knowledge::search))
        .route("/knowledge/jobs", get(jobs::list))
        .route("/knowledge/jobs/{id}", get(jobs::show))
        .route("/knowledge/jobs/{id}/cancel", post(jobs::cancel))
        .route("/knowledge/websites", post(jobs::add_website))
        .route("/knowledge/{id}", delete(knowledge::delete).get(versions::list))
        .route("/knowledge/{id}/reveal", post(versions::reveal))
        .route("/knowledge/{id}/raw", post(versions::raw))
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .route(
            "/knowledge/text",
            post(knowledge::add_text).layer(DefaultBodyLimit::max(knowledge::TEXT_BODY_BYTES_MAX)),
        )
        .route(
            "/knowledge/file",
            post(knowledge::add_file).layer(DefaultBodyLimit::max(knowledge::FILE_BODY_BYTES_MAX)),
        )
        .route("/golden/runs", get(golden::list).post(golden::run).layer(DefaultBodyLimit::max(golden::BODY_BYTES_MAX)))
        .route(
            "/knowledge/jobs/file",
            post(jobs::add_file).layer(DefaultBodyLimit::max(knowledge::FILE_BODY_BYTES_MAX)),
        )
        .route(
            "/policies/{chain}/revisions",
            post(policies::publish).layer(DefaultBodyLimit::max(frontdesk_policy_bundle::DOCUMENT_BYTES_MAX)),
        )
        .route("/turns/{turn_id}/redraft", post(redraft::redraft).layer(DefaultBodyLimit::max(redraft::BODY_BYTES_MAX)))
        .fallback(|| async { AdminError::NoSuchRoute })
        .method_not_allowed_fallback(|| async { AdminError::WrongMethod })
        .layer(middleware::from_fn_with_state(token, access::require_token))
        .layer(middleware::map_response(guard))
        .with_state(app);
    // Nesting leaves out the bare slash.
    let bare = any(|| async { AdminError::NoSuchRoute })
        .layer(middleware::from_fn_with_state(token, access::require_token))
        .layer(middleware::map_response(guard));
    Router::new().nest("/admin", routes).route("/admin/", bare)
}

/// Answers hold customers' words: no cache keeps them, no page frames them.
async fn guard(mut response: Response) -> Response {
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}
