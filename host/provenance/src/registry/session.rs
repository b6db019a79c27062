//! One operation on one repository: addresses, the authorization that was found out, and bounded answers.
//!
//! A request is sent without credentials first, unless an earlier one of the operation learned what the registry wants. A 401
//! says so in `WWW-Authenticate`: `Basic`, or `Bearer` with the address of a token service, the service's name and a
//! scope. The token is asked for with our credentials when there are any, and the request is repeated once.
//!
//! A request may be redirected to another host (an object store), and what answers then is not the registry: its challenge
//! is not answered, and no upload goes on where it says. A token service is taken at its word only without a redirect.

use std::sync::Mutex;

use frontdesk_policy_engine::OciName;
use reqwest::header::{AUTHORIZATION, HeaderValue, LOCATION, WWW_AUTHENTICATE};
use reqwest::{Method, RequestBuilder, Response, StatusCode, Url};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;

use super::{RegistryError, RegistryOptions};
use crate::credentials::Login;

/// Largest answer of a token service, and largest error document, in bytes.
const SMALL_BYTES_MAX: u64 = 64 << 10;
/// How much of a registry's own words is passed on, in characters.
const SAID_MAX: usize = 200;

/// The HTTP clients of all operations.
#[derive(Clone, Debug)]
pub(super) struct Clients {
    /// For registries; follows redirects to where their blobs lie.
    pub(super) registry: reqwest::Client,
    /// For token services; follows no redirect, because the body of a request may hold a secret.
    pub(super) tokens: reqwest::Client,
}

pub(super) struct Session<'a> {
    clients: &'a Clients,
    options: &'a RegistryOptions,
    registry: String,
    /// Scheme, host and port of the registry; whatever answers from elsewhere is somebody else. `None`: no address at all.
    origin: Option<String>,
    repository: String,
    plain_http: bool,
    push: bool,
    authorization: Mutex<Option<HeaderValue>>,
}

impl<'a> Session<'a> {
    pub(super) fn new(clients: &'a Clients, options: &'a RegistryOptions, name: &OciName, push: bool) -> Self {
        let plain_http = is_loopback(&name.registry) || options.plain_http.contains(&name.registry);
        let root = Url::parse(&format!("{}://{}/", scheme(plain_http), name.registry));
        Self {
            clients,
            options,
            plain_http,
            registry: name.registry.clone(),
            origin: root.ok().map(|root| root.origin().ascii_serialization()),
            repository: name.repository.clone(),
            push,
            authorization: Mutex::new(None),
        }
    }

    pub(super) fn registry(&self) -> &str {
        &self.registry
    }

    pub(super) fn repository(&self) -> &str {
        &self.repository
    }

    pub(super) fn protocol(&self, what: &str, problem: &str) -> RegistryError {
        let problem = short(problem);
        RegistryError::Protocol { registry: self.registry.clone(), what: what.to_owned(), problem }
    }

    /// A request below the repository.
    pub(super) fn request(&self, method: Method, path: &str) -> Result<RequestBuilder, RegistryError> {
        let address = format!("{}://{}/v2/{}/{path}", scheme(self.plain_http), self.registry, self.repository);
        let url = Url::parse(&address).map_err(|error| self.unreachable(path, error.to_string()))?;
        Ok(self.request_to(method, url))
    }

    pub(super) fn request_to(&self, method: Method, url: Url) -> RequestBuilder {
        self.clients.registry.request(method, url)
    }

    fn is_registry(&self, url: &Url) -> bool {
        self.origin.as_ref().is_some_and(|origin| *origin == url.origin().ascii_serialization())
    }

    /// Where an upload goes on; must be on the registry itself, because our authorization goes with it.
    pub(super) fn location(&self, what: &str, response: &Response) -> Result<Url, RegistryError> {
        let text = response.headers().get(LOCATION).and_then(|value| value.to_str().ok());
        let url = text
            .and_then(|text| response.url().join(text).ok())
            .ok_or_else(|| self.protocol(what, "no Location for the upload"))?;
        if !self.is_registry(&url) {
            return Err(self.protocol(what, "the upload is to go on at another host"));
        }
        Ok(url)
    }

    /// Sends a request, authorized as the registry wants it; gives a good answer only.
    pub(super) async fn send(&self, what: &str, request: RequestBuilder) -> Result<Response, RegistryError> {
        let again = request.try_clone();
        let response = self.once(what, request).await?;
        if response.status() != StatusCode::UNAUTHORIZED {
            return self.good(what, response).await;
        }
        if !self.is_registry(response.url()) {
            let problem = "it redirects to another host that wants a login, and ours is for the registry alone";
            return Err(self.protocol(what, problem));
        }
        let challenge = response.headers().get(WWW_AUTHENTICATE).and_then(|value| value.to_str().ok());
        let answered = match challenge {
            Some(challenge) => self.answer(what, challenge).await?,
            None => None,
        };
        match (answered, again) {
            (Some(header), Some(again)) => {
                *self.authorization.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(header);
                let response = self.once(what, again).await?;
                self.good(what, response).await
            }
            _ => self.good(what, response).await,
        }
    }

    async fn once(&self, what: &str, request: RequestBuilder) -> Result<Response, RegistryError> {
        let known = self.authorization.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone();
        let request = match known {
            Some(header) => request.header(AUTHORIZATION, header),
            None => request,
        };
        request.send().await.map_err(|error| self.network(what, error))
    }

    async fn good(&self, what: &str, response: Response) -> Result<Response, RegistryError> {
        let (registry, what) = (self.registry.clone(), what.to_owned());
        match response.status() {
            status if status.is_success() => Ok(response),
            StatusCode::NOT_FOUND => Err(RegistryError::NotFound { registry, what }),
            status @ (StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) => {
                let hint = self.hint();
                Err(RegistryError::Denied { registry, what, status: status.as_u16(), hint })
            }
            status => {
                let said = self.said(response).await;
                Err(RegistryError::Status { registry, what, status: status.as_u16(), said })
            }
        }
    }

    /// The first error of an OCI error document, or the first words of another.
    async fn said(&self, response: Response) -> String {
        #[derive(Deserialize)]
        struct Errors {
            errors: Vec<OneError>,
        }
        #[derive(Deserialize)]
        struct OneError {
            code: String,
            #[serde(default)]
            message: String,
        }
        let Ok(body) = self.body("an error", response, SMALL_BYTES_MAX).await else { return "no reason".to_owned() };
        let first = serde_json::from_slice::<Errors>(&body).ok().and_then(|found| found.errors.into_iter().next());
        match first {
            Some(error) => short(&format!("{} {}", error.code, error.message)),
            None => short(String::from_utf8_lossy(&body).trim()),
        }
    }

    fn hint(&self) -> String {
        let credentials = &self.options.credentials;
        let registry = &self.registry;
        if credentials.of(registry).is_some() {
            return format!("the credentials for {registry} are not enough");
        }
        if credentials.is_in_helper(registry) {
            return format!(
                "the credentials for {registry} are in a credential helper, which is not run: give a docker config that holds \
                 them in \"auths\""
            );
        }
        format!("there are no credentials for {registry}: give a docker config that holds them in \"auths\"")
    }

    /// Reads a body up to `most` bytes.
    pub(super) async fn body(&self, what: &str, mut response: Response, most: u64) -> Result<Vec<u8>, RegistryError> {
        let too_large = || RegistryError::TooLarge { registry: self.registry.clone(), what: what.to_owned(), most };
        if response.content_length().is_some_and(|announced| announced > most) {
            return Err(too_large());
        }
        let mut bytes = Vec::new();
        while let Some(piece) = response.chunk().await.map_err(|error| self.network(what, error))? {
            if (bytes.len() + piece.len()) as u64 > most {
                return Err(too_large());
            }
            bytes.extend_from_slice(&piece);
        }
        Ok(bytes)
    }

    /// The header that answers a challenge; `None` when there is nothing to answer it with.
    async fn answer(&self, what: &str, challenge: &str) -> Result<Option<HeaderValue>, RegistryError> {
        let login = self.options.credentials.of(&self.registry);
        let (scheme, parameters) = challenge.split_once(' ').unwrap_or((challenge, ""));
        if scheme.eq_ignore_ascii_case("basic") {
            return Ok(login.filter(|login| !login.is_identity_token).and_then(basic));
        }
        if !scheme.eq_ignore_ascii_case("bearer") {
            return Err(
                self.protocol(what, &format!("it wants the authorization `{scheme}`; Basic and Bearer are known"))
            );
        }
        let parameter =
            |name: &str| parameters_of(parameters).find(|(found, _)| *found == name).map(|(_, value)| value);
        let realm = parameter("realm").ok_or_else(|| self.protocol(what, "its challenge names no token service"))?;
        let realm = Url::parse(&realm).map_err(|_| self.protocol(what, "its token service has no address"))?;
        if realm.scheme() != "https" && !(self.plain_http && realm.scheme() == "http") {
            return Err(self.protocol(what, "its token service is not reached over TLS"));
        }
        let actions = if self.push { "pull,push" } else { "pull" };
        let scope = format!("repository:{}:{actions}", self.repository);
        let token = self.token(what, realm, parameter("service"), &scope, login).await?;
        let mut header = HeaderValue::from_str(&format!("Bearer {}", token.expose_secret()))
            .map_err(|_| self.protocol(what, "its token cannot be sent"))?;
        header.set_sensitive(true);
        Ok(Some(header))
    }

    async fn token(
        &self,
        what: &str,
        realm: Url,
        service: Option<String>,
        scope: &str,
        login: Option<&Login>,
    ) -> Result<SecretString, RegistryError> {
        #[derive(Deserialize)]
        struct Answer {
            token: Option<SecretString>,
            access_token: Option<SecretString>,
        }
        let service = service.unwrap_or_default();
        let request = match login {
            Some(login) if login.is_identity_token => {
                let form = [
                    ("grant_type", "refresh_token"),
                    ("refresh_token", login.secret.expose_secret()),
                    ("client_id", "frontdesk"),
                    ("service", service.as_str()),
                    ("scope", scope),
                ];
                let body = Url::parse_with_params("http://form", form)
                    .map_err(|_| self.protocol(what, "its token service cannot be asked"))?;
                self.clients
                    .tokens
                    .post(realm)
                    .header("content-type", "application/x-www-form-urlencoded")
                    .body(body.query().unwrap_or_default().to_owned())
            }
            _ => {
                let request = self.clients.tokens.get(realm).query(&[("service", service.as_str()), ("scope", scope)]);
                match login.and_then(basic) {
                    Some(header) => request.header(AUTHORIZATION, header),
                    None => request,
                }
            }
        };
        let response = request.send().await.map_err(|error| self.network("a token", error))?;
        let response = self.good("a token", response).await?;
        let body = self.body("a token", response, SMALL_BYTES_MAX).await?;
        let answer: Option<Answer> = serde_json::from_slice(&body).ok();
        answer
            .and_then(|answer| answer.token.or(answer.access_token))
            .ok_or_else(|| self.protocol(what, "its token service gave no token"))
    }

    /// A failure of the network; the address, which may hold a signed query, stays out of it.
    fn network(&self, what: &str, error: reqwest::Error) -> RegistryError {
        let error = error.without_url();
        let mut reason = error.to_string();
        let mut cause = std::error::Error::source(&error);
        while let Some(inner) = cause {
            reason = format!("{reason}: {inner}");
            cause = inner.source();
        }
        self.unreachable(what, short(&reason))
    }

    fn unreachable(&self, what: &str, reason: String) -> RegistryError {
        RegistryError::Unreachable { registry: self.registry.clone(), what: what.to_owned(), reason }
    }
}

fn basic(login: &Login) -> Option<HeaderValue> {
    let plain = SecretString::from(format!("{}:{}", login.user, login.secret.expose_secret()));
    let text = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, plain.expose_secret());
    let mut header = HeaderValue::from_str(&format!("Basic {text}")).ok()?;
    header.set_sensitive(true);
    Some(header)
}

fn scheme(plain_http: bool) -> &'static str {
    if plain_http { "http" } else { "https" }
}

/// Whether a registry, with or without a port, is on this machine.
fn is_loopback(registry: &str) -> bool {
    let host = registry.split_once(':').map_or(registry, |(host, _)| host);
    host == "localhost" || host.parse::<std::net::Ipv4Addr>().is_ok_and(|address| address.is_loopback())
}

/// `realm="https://…",service="…"` as pairs (RFC 9110, section 11.2).
fn parameters_of(text: &str) -> impl Iterator<Item = (&str, String)> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let (name, after) = rest.trim_start_matches([' ', ',']).split_once('=')?;
        let (value, after) = match after.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"')?,
            None => after.split_once(',').unwrap_or((after, "")),
        };
        rest = after;
        Some((name.trim(), value.to_owned()))
    })
}

fn short(text: &str) -> String {
    let mut out: String = text.chars().take(SAID_MAX).flat_map(char::escape_debug).collect();
    if out.is_empty() {
        out.push_str("no reason");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn challenges_are_taken_apart() {
        let text =
            r#"realm="https://auth.example/token",service="registry.example", scope="repository:a/b:pull,push",x=1"#;
        let found: Vec<_> = parameters_of(text).collect();
        let expected = [
            ("realm", "https://auth.example/token"),
            ("service", "registry.example"),
            ("scope", "repository:a/b:pull,push"),
            ("x", "1"),
        ];
        assert_eq!(found, expected.map(|(name, value)| (name, value.to_owned())));
        assert_eq!(parameters_of("realm=\"open").count(), 0);
        assert_eq!(parameters_of("").count(), 0);
    }

    #[test]
    fn only_this_machine_is_loopback() {
        for (registry, expected) in [
            ("localhost:5000", true),
            ("127.0.0.1", true),
            ("127.8.8.8:1", true),
            ("10.0.0.1:5000", false),
            ("localhost.example", false),
            ("127.0.0.1.example:80", false),
        ] {
            assert_eq!(is_loopback(registry), expected, "{registry}");
        }
    }
}
