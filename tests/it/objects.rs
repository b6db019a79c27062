//! Raw files in a bucket: a real S3 protocol over HTTP.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use frontdesk_server::objects::S3Credentials;
use secrecy::SecretString;
use serde_json::json;

use crate::host::{Host, PATIENCE};

const BUCKET: &str = "frontdesk-tests";

/// An S3 server on loopback with an empty bucket; gone when dropped.
struct S3 {
    child: Child,
    address: String,
}

impl S3 {
    async fn start() -> Self {
        let packages: PathBuf = std::env::var_os("FRONTDESK_S3_SERVER_DIR")
            .expect("FRONTDESK_S3_SERVER_DIR must name the S3 server's packages (cargo xtask test sets it)")
            .into();
        // A port that was free a moment ago; a test that loses the race fails to start its server and says so.
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut child = Command::new("python3")
            .args(["-m", "moto.server", "-H", "127.0.0.1", "-p", &port.to_string()])
            .env_clear()
            .env("PYTHONPATH", packages)
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .env("PATH", "/usr/local/bin:/usr/bin:/bin")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let address = format!("http://127.0.0.1:{port}");
        let (http, began) = (reqwest::Client::new(), Instant::now());
        while !http.put(format!("{address}/{BUCKET}")).send().await.is_ok_and(|answer| answer.status().is_success()) {
            assert!(child.try_wait().unwrap().is_none(), "the S3 server ended");
            assert!(began.elapsed() < PATIENCE * 2, "the S3 server does not answer");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Self { child, address }
    }

    /// An object as it stands in the bucket. The server shows it to whoever names any account, and to nobody else.
    async fn ask(&self, method: reqwest::Method, key: &str) -> bytes::Bytes {
        let request = reqwest::Client::new().request(method, format!("{}/{BUCKET}/{key}", self.address));
        let answer = request.header("authorization", "AWS somebody:else").send().await.unwrap();
        assert!(answer.status().is_success(), "{answer:?}");
        answer.bytes().await.unwrap()
    }

    /// Keys in the bucket.
    async fn keys(&self) -> Vec<String> {
        let list = reqwest::get(format!("{}/{BUCKET}?list-type=2", self.address)).await.unwrap().text().await.unwrap();
        list.split("<Key>").skip(1).map(|rest| rest.split('<').next().unwrap().to_owned()).collect()
    }
}

impl Drop for S3 {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test]
async fn raw_files_go_to_a_bucket_sealed_and_leave_it_when_their_document_does() {
    let s3 = S3::start().await;
    let endpoint = s3.address.clone();
    let host = Host::start_with(move |plan| {
        let objects = &mut plan.settings.objects;
        (objects.bucket, objects.region) = (BUCKET.into(), "eu-central-1".into());
        (objects.endpoint, objects.allow_http, objects.prefix) = (endpoint.clone(), true, "desk".into());
        plan.secrets.s3 = Some(S3Credentials {
            access_key_id: SecretString::from("an id"),
            secret_access_key: SecretString::from("a key"),
        });
    })
    .await;
    let text = "Mrs Huber, eva.huber@mail.example, rents a gravel bike every summer.";
    let body = json!({ "title": "Notes", "text": text });
    let (status, answer) = host.admin("POST", "/admin/knowledge/text", Some(body)).await;
    assert_eq!(status, 201, "{answer}");
    let keys = s3.keys().await;
    assert!(keys.len() == 1 && keys[0].starts_with("desk/raw/"), "{keys:?}");
    let stored = s3.ask(reqwest::Method::GET, &keys[0]).await;
    assert!(
        stored.len() > text.len() && !stored.windows(10).any(|window| text.as_bytes().windows(10).any(|t| t == window))
    );

    let id = answer["document_id"].as_str().unwrap();
    let sealed =
        frontdesk_server::db::documents::sealed(host.pool(), id.parse().unwrap(), None).await.unwrap().unwrap();
    let archive = host.app.knowledge.archive().unwrap();
    let wrapped = frontdesk_server::keys::Wrapped { key_id: sealed.key_id, sealed: sealed.wrapped };
    let kept = archive.reopen(&sealed.object_key, &wrapped).unwrap();
    assert_eq!(archive.raw(&kept).await.unwrap().as_slice(), text.as_bytes());

    host.admin("DELETE", &format!("/admin/knowledge/{id}"), None).await;
    while host.app.objects.sweep_once().await.unwrap() > 0 {}
    assert_eq!(s3.keys().await, Vec::<String>::new());
    // Somebody empties the bucket by hand: it is said, and deleting the document still works.
    let (_, answer) = host.admin("POST", "/admin/knowledge/text", Some(json!({ "title": "A", "text": "Tea." }))).await;
    let id = answer["document_id"].as_str().unwrap();
    let keys = s3.keys().await;
    s3.ask(reqwest::Method::DELETE, &keys[0]).await;
    let sealed =
        frontdesk_server::db::documents::sealed(host.pool(), id.parse().unwrap(), None).await.unwrap().unwrap();
    let error = host.app.objects.get(&sealed.object_key).await.unwrap_err();
    assert!(error.to_string().contains("somebody deleted it there"), "{error}");
    host.admin("DELETE", &format!("/admin/knowledge/{id}"), None).await;
    while host.app.objects.sweep_once().await.unwrap() > 0 {}
    assert_eq!(host.count("select count(*) from object_garbage").await, 0);
}

#[tokio::test]
async fn a_bucket_that_does_not_answer_stores_nothing() {
    let host = Host::start_with(|plan| {
        let objects = &mut plan.settings.objects;
        (objects.bucket, objects.region) = (BUCKET.into(), "eu-central-1".into());
        // Nothing listens on the discard port of loopback.
        (objects.endpoint, objects.allow_http) = ("http://127.0.0.1:9".into(), true);
        plan.secrets.s3 = Some(S3Credentials {
            access_key_id: SecretString::from("an id"),
            secret_access_key: SecretString::from("a key"),
        });
    })
    .await;
    let (status, answer) =
        host.admin("POST", "/admin/knowledge/text", Some(json!({ "title": "A", "text": "We open at nine." }))).await;
    assert_eq!(status, 503, "{answer}");
    assert!(answer["error"]["message"].as_str().unwrap().contains("object store"), "{answer}");
    assert_eq!(host.count("select count(*) from documents").await, 0);
}
