//! Registries that point elsewhere: what the other host asks for, it does not get.

use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::http::{Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use frontdesk_policy_engine::OciName;
use frontdesk_provenance::artifact::{ComponentConfig, lay_out};
use frontdesk_provenance::{Credentials, Registry, RegistryOptions};
use serde_json::json;

const SECRET: &str = "a secret of the tests";

/// The host that a registry points to. It asks for a login, and names itself as the token service.
#[derive(Debug)]
struct Elsewhere {
    address: String,
    /// Of each request: method, path, authorization, body.
    seen: Mutex<Vec<String>>,
}

/// A registry that keeps nothing itself.
struct Front {
    /// What it wants of requests without authorization; `None`: nothing.
    challenge: Option<String>,
    elsewhere: String,
}

async fn serve(app: impl FnOnce(String) -> Router) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let app = app(address.clone());
    tokio::spawn(async move { axum::serve(listener, app).await });
    address
}

impl Elsewhere {
    async fn start() -> Arc<Self> {
        let mut made = None;
        serve(|address| {
            let elsewhere = Arc::new(Self { address, seen: Mutex::default() });
            made = Some(Arc::clone(&elsewhere));
            Router::new().fallback(Self::answer).with_state(elsewhere)
        })
        .await;
        made.unwrap()
    }

    async fn answer(State(this): State<Arc<Self>>, request: Request) -> Response {
        let (head, body) = request.into_parts();
        let body = to_bytes(body, 1 << 20).await.unwrap();
        let authorization = head.headers.get(header::AUTHORIZATION);
        this.seen.lock().unwrap().push(format!(
            "{} {} authorization={authorization:?} {}",
            head.method,
            head.uri,
            String::from_utf8_lossy(&body)
        ));
        if head.uri.path().ends_with("/token") {
            return axum::Json(json!({ "token": "a-token" })).into_response();
        }
        let answer = Response::builder();
        let answer = match head.method {
            Method::POST => answer.status(StatusCode::ACCEPTED).header(header::LOCATION, "/upload/1"),
            Method::PUT => answer.status(StatusCode::CREATED),
            _ => {
                let challenge = format!("Bearer realm=\"http://{}/token\",service=\"x\"", this.address);
                answer.status(StatusCode::UNAUTHORIZED).header(header::WWW_AUTHENTICATE, challenge)
            }
        };
        answer.body(Body::empty()).unwrap()
    }

    fn seen(&self) -> Vec<String> {
        self.seen.lock().unwrap().clone()
    }
}

impl Front {
    /// `challenge` is made from the registry's own address.
    async fn start(elsewhere: &Elsewhere, challenge: impl FnOnce(&str) -> Option<String>) -> String {
        let elsewhere = elsewhere.address.clone();
        serve(|address| {
            let front = Self { challenge: challenge(&address), elsewhere };
            Router::new().fallback(Self::answer).with_state(Arc::new(front))
        })
        .await
    }

    async fn answer(State(this): State<Arc<Self>>, request: Request) -> Response {
        let is_token = request.uri().path() == "/token";
        let is_authorized = request.headers().contains_key(header::AUTHORIZATION);
        let answer = Response::builder();
        let answer = match (&this.challenge, request.method()) {
            (Some(challenge), _) if !is_token && !is_authorized => {
                answer.status(StatusCode::UNAUTHORIZED).header(header::WWW_AUTHENTICATE, challenge)
            }
            (_, &Method::HEAD) => answer.status(StatusCode::NOT_FOUND),
            _ => {
                let place = format!("http://{}{}", this.elsewhere, request.uri());
                answer.status(StatusCode::TEMPORARY_REDIRECT).header(header::LOCATION, place)
            }
        };
        answer.body(Body::empty()).unwrap()
    }
}

fn client(registry: &str, entry: &serde_json::Value) -> Registry {
    let credentials = Credentials::parse(&json!({ "auths": { registry: entry } }).to_string()).unwrap();
    Registry::new(RegistryOptions { credentials, ..RegistryOptions::default() }).unwrap()
}

#[tokio::test]
async fn a_host_that_a_registry_points_to_learns_no_credentials() {
    let elsewhere = Elsewhere::start().await;
    let login = json!({ "username": "ada", "password": SECRET });
    let reference = |registry: &str| {
        OciName::parse(&format!("oci://{registry}/acme/rules")).unwrap().pinned(&"ab".repeat(32)).unwrap()
    };

    // A download that is sent on, and the other host asks for a login.
    let registry = Front::start(&elsewhere, |_| None).await;
    let error = client(&registry, &login).pull(&reference(&registry)).await.unwrap_err().to_string();
    assert!(error.contains("another host that wants a login") && error.contains(&registry), "{error}");
    assert_eq!(elsewhere.seen().len(), 1, "asked once, and its token service never: {:?}", elsewhere.seen());

    // An upload that is sent on: the other host says where it goes on.
    let registry = Front::start(&elsewhere, |_| Some("Basic realm=\"registry\"".to_owned())).await;
    let name = OciName::parse(&format!("oci://{registry}/acme/rules")).unwrap();
    let about = ComponentConfig { exports: Vec::new(), imports: Vec::new() };
    let artifact = lay_out(b"a component", about, "x.wasm").unwrap();
    let pushed = client(&registry, &login).push(&name, b"a component", &artifact).await;
    let error = pushed.unwrap_err().to_string();
    assert!(error.contains("the upload is to go on at another host"), "{error}");
    let seen = elsewhere.seen();
    assert!(seen.len() == 2 && seen[1].starts_with("POST "), "no PUT follows: {seen:?}");

    // A token service that sends the identity token on.
    let of_itself = |address: &str| Some(format!("Bearer realm=\"http://{address}/token\",service=\"registry\""));
    let registry = Front::start(&elsewhere, of_itself).await;
    let refresh = json!({ "identitytoken": SECRET });
    let error = client(&registry, &refresh).pull(&reference(&registry)).await.unwrap_err().to_string();
    assert!(error.contains("answered a token with 307"), "{error}");

    let seen = elsewhere.seen();
    assert_eq!(seen.len(), 2, "{seen:?}");
    for request in &seen {
        assert!(request.contains("authorization=None") && !request.contains("secret"), "{request}");
    }
}
