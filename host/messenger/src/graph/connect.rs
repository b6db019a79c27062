//! Connecting a Page, and finding a person's Page-scoped ids: the calls that take a user's or the app's own token.
//!
//! ```text
//! short-lived user token --oauth/access_token--> long-lived one (about 60 days)
//!     --me/accounts--> a token for each Page, which does not expire as long as the person keeps password, role and app
//! ```
//! Source: Meta's access token guides. The exchange takes no `appsecret_proof`; it carries the secret itself, in the query as
//! Meta documents it, so its address must never be logged ([`super::CallTrace`] holds none).

use reqwest::Method;
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Map, Value};

use super::answers::{UNREADABLE, data, strings_at, success};
use super::{GraphClient, PageCredentials, Reply, call};
use crate::event::lenient::{id_at, object_at, text_at, whole_at};
use crate::ids::{AppId, PageId, Psid};

/// Pages asked for at once, and how often the list is turned over: nobody manages more Pages than that.
const ACCOUNTS_PER_CALL: &str = "100";
const ACCOUNT_CALLS_MAX: usize = 20;

/// A user's token that lives for weeks.
#[derive(Clone, Debug)]
pub struct LongLivedToken {
    pub token: SecretString,
    /// Seconds; `None` when Meta does not say.
    pub expires_in_s: Option<i64>,
}

/// A Page that a person manages, with its token.
#[derive(Clone, Debug)]
pub struct Account {
    pub page: PageCredentials,
    pub name: String,
    /// What the person may do there, such as `MODERATE` and `MESSAGING`.
    pub tasks: Vec<String>,
}

/// A person as one Page knows them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PagePerson {
    pub page_id: PageId,
    pub psid: Psid,
}

impl GraphClient {
    /// A long-lived token for a user's token, whatever its age.
    pub async fn exchange_token(
        &self,
        app_id: &AppId,
        app_secret: &SecretString,
        user_token: &SecretString,
    ) -> Reply<LongLivedToken> {
        let query = [
            ("grant_type", "fb_exchange_token"),
            ("client_id", app_id.as_str()),
            ("client_secret", app_secret.expose_secret()),
            ("fb_exchange_token", user_token.expose_secret()),
        ];
        let request = self.http.get(self.url(&["oauth", "access_token"])).query(&query);
        call::run(request).await.and_then(|body| {
            let body = body.as_object().ok_or(UNREADABLE)?;
            let token = text_at(body, "access_token").ok_or(UNREADABLE)?;
            Ok(LongLivedToken { token: SecretString::from(token), expires_in_s: whole_at(body, "expires_in") })
        })
    }

    /// The Pages that a user's token reaches, with their tokens; all of them, however many calls it takes.
    pub async fn accounts(&self, user_token: &SecretString) -> Reply<Vec<Account>> {
        let mut accounts = Vec::new();
        let mut after: Option<String> = None;
        let mut round = 0;
        loop {
            round += 1;
            let mut query = vec![("fields", "id,name,access_token,tasks"), ("limit", ACCOUNTS_PER_CALL)];
            query.extend(after.as_deref().map(|after| ("after", after)));
            let reply = self.get(&["me", "accounts"], &query, user_token, true).await;
            let reply =
                reply.and_then(|body| Ok((data(&body)?.into_iter().filter_map(account).collect(), next(&body))));
            let (found, next): (Vec<Account>, Option<String>) = match reply.result {
                Ok(page) => page,
                Err(failure) => return Reply { result: Err(failure), usage: reply.usage, trace: reply.trace },
            };
            accounts.extend(found);
            after = next;
            if after.is_none() || round == ACCOUNT_CALLS_MAX {
                return Reply { result: Ok(accounts), usage: reply.usage, trace: reply.trace };
            }
        }
    }

    /// Ends this app's subscription to the Page's events.
    pub async fn unsubscribe(&self, page: &PageCredentials) -> Reply<()> {
        let url = self.url(&[page.page_id.as_str(), "subscribed_apps"]);
        let request = self.http.request(Method::DELETE, url).query(&self.proof(&page.token));
        call::run(request.bearer_auth(page.token.expose_secret())).await.and_then(|body| success(&body))
    }

    /// The Page-scoped ids of a person whose app-scoped id is known, on the Pages of the same business. Empty when Meta knows none.
    pub async fn ids_for_pages(
        &self,
        app_id: &AppId,
        app_secret: &SecretString,
        user_id: &str,
    ) -> Reply<Vec<PagePerson>> {
        let app_token = SecretString::from(format!("{app_id}|{}", app_secret.expose_secret()));
        let query = [("limit", ACCOUNTS_PER_CALL)];
        self.get(&[user_id, "ids_for_pages"], &query, &app_token, true).await.and_then(|body| {
            let person = |found: &Map<String, Value>| {
                let page_id = object_at(found, "page").and_then(|page| id_at(page, "id")).map(PageId::new)?;
                Some(PagePerson { page_id, psid: id_at(found, "id").map(Psid::new)? })
            };
            Ok(data(&body)?.into_iter().filter_map(person).collect())
        })
    }
}

fn account(found: &Map<String, Value>) -> Option<Account> {
    let page_id = id_at(found, "id").map(PageId::new)?;
    let token = SecretString::from(text_at(found, "access_token")?);
    Some(Account {
        page: PageCredentials { page_id, token },
        name: text_at(found, "name").unwrap_or_default(),
        tasks: strings_at(found, "tasks"),
    })
}

/// The cursor of the next page; only with a `next` there is one.
fn next(body: &Value) -> Option<String> {
    let paging = object_at(body.as_object()?, "paging")?;
    text_at(paging, "next")?;
    text_at(object_at(paging, "cursors")?, "after").filter(|after| !after.is_empty())
}
