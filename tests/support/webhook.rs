//! Meta's side of the webhook: signs bodies and posts them.

use std::time::Duration;

use frontdesk_messenger::signature;
use secrecy::SecretString;
use serde_json::Value;

use crate::wire;

/// Meta waits five seconds for a 200.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// Posts signed bodies to one callback for one Page.
#[derive(Clone, Debug)]
pub struct WebhookSender {
    http: reqwest::Client,
    callback_url: String,
    app_secret: SecretString,
    page_id: String,
}

impl WebhookSender {
    /// # Errors
    /// When the HTTP client cannot be built.
    pub fn new(
        callback_url: impl Into<String>,
        app_secret: impl Into<String>,
        page_id: impl Into<String>,
    ) -> reqwest::Result<Self> {
        Ok(Self {
            http: reqwest::Client::builder().timeout(ANSWER_TIMEOUT).build()?,
            callback_url: callback_url.into(),
            app_secret: SecretString::from(app_secret.into()),
            page_id: page_id.into(),
        })
    }

    /// The Page whose events these are.
    pub fn page_id(&self) -> &str {
        &self.page_id
    }

    /// The callback's verification request; gives the status and the body.
    ///
    /// # Errors
    /// When no answer comes.
    pub async fn verify(&self, verify_token: &str, challenge: &str) -> reqwest::Result<(u16, String)> {
        let query = [("hub.mode", "subscribe"), ("hub.verify_token", verify_token), ("hub.challenge", challenge)];
        let response = self.http.get(&self.callback_url).query(&query).send().await?;
        Ok((response.status().as_u16(), response.text().await?))
    }

    /// Signs and posts a body in Meta's written form; gives the status.
    ///
    /// # Errors
    /// When no answer comes within Meta's five seconds.
    pub async fn post(&self, body: &Value) -> reqwest::Result<u16> {
        let wire = wire::to_wire(body);
        let signature = signature::sign(&self.app_secret, &wire);
        self.post_bytes(wire, Some(&signature)).await
    }

    /// Posts any bytes with any signature header, or none.
    ///
    /// # Errors
    /// When no answer comes within Meta's five seconds.
    pub async fn post_bytes(&self, body: Vec<u8>, signature: Option<&str>) -> reqwest::Result<u16> {
        let mut request = self.http.post(&self.callback_url).header("content-type", "application/json").body(body);
        if let Some(signature) = signature {
            request = request.header(signature::SIGNATURE_HEADER, signature);
        }
        Ok(request.send().await?.status().as_u16())
    }

    /// Posts as Meta does: a few more times at once when the answer is not 200. Gives the last status; `None` when no
    /// attempt was answered.
    pub async fn deliver(&self, body: &Value, attempts_max: u32) -> Option<u16> {
        let mut status = None;
        let mut pause = Duration::from_millis(100);
        for attempt in 1..=attempts_max {
            status = self.post(body).await.ok().or(status);
            if status == Some(200) || attempt == attempts_max {
                break;
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_secs(2));
        }
        status
    }

    /// Posts one piece from a person, stamped now.
    ///
    /// # Errors
    /// When no answer comes within Meta's five seconds.
    pub async fn from_person(&self, psid: &str, fields: Value) -> reqwest::Result<u16> {
        let now_ms = wire::now_ms();
        let piece = wire::from_person(&self.page_id, psid, now_ms, fields);
        self.post(&wire::body(&self.page_id, now_ms, vec![piece])).await
    }

    /// Posts a text message; gives its id and the status.
    ///
    /// # Errors
    /// When no answer comes within Meta's five seconds.
    pub async fn text(&self, psid: &str, text: &str) -> reqwest::Result<(String, u16)> {
        let mid = wire::new_mid();
        let status = self.from_person(psid, wire::text(&mid, text)).await?;
        Ok((mid, status))
    }

    /// Posts what a person of the Page wrote in Business Suite; gives its id and the status.
    ///
    /// # Errors
    /// When no answer comes within Meta's five seconds.
    pub async fn inbox_echo(&self, psid: &str, text: &str) -> reqwest::Result<(String, u16)> {
        let mid = wire::new_mid();
        let now_ms = wire::now_ms();
        let piece = wire::from_page(&self.page_id, psid, now_ms, wire::inbox_echo(&mid, text));
        let status = self.post(&wire::body(&self.page_id, now_ms, vec![piece])).await?;
        Ok((mid, status))
    }

    /// Posts a piece as a reader of somebody else's thread gets it.
    ///
    /// # Errors
    /// When no answer comes within Meta's five seconds.
    pub async fn standby(&self, psid: &str, fields: Value) -> reqwest::Result<u16> {
        let now_ms = wire::now_ms();
        let piece = wire::from_person(&self.page_id, psid, now_ms, fields);
        self.post(&wire::batch(vec![wire::entry(&self.page_id, now_ms, "standby", vec![piece])])).await
    }
}
