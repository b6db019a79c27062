//! A host dies at each of its fail points in turn, and its successor finishes what it began.
//!
//! The process is real, and so is its end: `abort` between two steps. What the dead process had not acknowledged is repeated, as Meta
//! and a person at a console would. A point that is never reached fails the test: it would show nothing.
//! `FRONTDESK_FAULT_ROUNDS` repeats it all, `FRONTDESK_FAULT_POINT` chooses one point.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use frontdesk_server::fail_point::Point;
use frontdesk_testkit::{EchoPlan, Outcome, wire};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::sync::Mutex;
use uuid::Uuid;

use crate::host::{ANSWER, PAGE, QUESTION};
use crate::process::{Installation, PATIENCE, Process};

/// What the host is doing when it dies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scenario {
    /// A customer asks, and is answered.
    Ask,
    /// A customer asks, and Meta's answer to the reply is lost, with its echo.
    Doubt,
    /// A customer asks for a person.
    Ticket,
    /// A person of the Page writes in Meta's inbox.
    InboxEcho,
    /// A person takes the conversation over.
    Takeover,
    /// A person answers.
    Reply,
    /// A person hands the conversation back.
    Handback,
}

fn scenario(point: Point) -> Scenario {
    match point {
        Point::DoubtTaken | Point::DoubtLookedUp => Scenario::Doubt,
        Point::TurnWritten | Point::TicketPosted | Point::TicketNoted => Scenario::Ticket,
        Point::OwnerChanged | Point::EchoApplied => Scenario::InboxEcho,
        Point::TakeoverWritten | Point::TakeoverCommitted => Scenario::Takeover,
        Point::ReplyWritten | Point::ReplyCommitted => Scenario::Reply,
        Point::HandbackCommitted => Scenario::Handback,
        _ => Scenario::Ask,
    }
}

/// A CRM that keeps the ids of what it was sent.
#[derive(Debug, Default)]
struct Crm {
    taken: Mutex<Vec<(String, Value)>>,
}

async fn crm() -> (Arc<Crm>, String) {
    let crm = Arc::new(Crm::default());
    let kept = Arc::clone(&crm);
    let take = async move |headers: HeaderMap, body: Bytes| {
        let id = headers["webhook-id"].to_str().unwrap().to_owned();
        kept.taken.lock().await.push((id, serde_json::from_slice(&body).unwrap()));
        StatusCode::NO_CONTENT
    };
    let router = Router::new().route("/tickets", post(take));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/tickets", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    (crm, url)
}

struct Trial<'a> {
    installation: &'a Installation,
    crm: &'a Crm,
    point: Point,
    psid: String,
}

impl Trial<'_> {
    async fn number(&self, query: &'static str) -> i64 {
        sqlx::query_scalar(query).bind(&self.psid).fetch_one(&self.installation.ground.db.pool).await.unwrap()
    }

    async fn conversation(&self) -> Uuid {
        sqlx::query_scalar("select id from conversations where psid = $1")
            .bind(&self.psid)
            .fetch_one(&self.installation.ground.db.pool)
            .await
            .unwrap()
    }

    async fn owner(&self) -> String {
        sqlx::query_scalar("select state from conversations where psid = $1")
            .bind(&self.psid)
            .fetch_one(&self.installation.ground.db.pool)
            .await
            .unwrap()
    }

    fn sends(&self) -> Vec<String> {
        self.installation.graph.sends_to(&self.psid).into_iter().map(|sent| sent.text).collect()
    }

    /// One message of the customer, and its repetition by Meta.
    fn message(&self, text: &str) -> Value {
        let (mid, now_ms) = (wire::new_mid(), wire::now_ms());
        self.installation.graph.record_inbound(PAGE, &self.psid, &mid, text);
        wire::body(PAGE, now_ms, vec![wire::from_person(PAGE, &self.psid, now_ms, wire::text(&mid, text))])
    }

    /// Something that may be asked of the host twice: posts it, and says whether it was acknowledged.
    async fn act(&self, process: &Process, act: &Act) -> bool {
        match act {
            Act::Deliver(body) => process.meta.post(body).await.is_ok_and(|status| status == 200),
            Act::Admin(path, body) => {
                let answer = process.admin(Method::POST, path, body.clone()).await;
                answer.is_some_and(|(status, _)| status < 300)
            }
        }
    }

    /// Lets a host that dies at the point do this, and gives its successor, to which the same is done unless it was
    /// acknowledged.
    async fn dies_doing(&self, act: Act) -> Process {
        let mut dying = self.installation.start_to_die_at(Some(self.point)).await;
        let is_acknowledged = self.act(&dying, &act).await;
        let ended = dying.ended(PATIENCE).await;
        let name = self.point.name();
        assert!(ended.is_some_and(|status| !status.success()), "the point {name} was not reached: {ended:?}");
        let successor = self.installation.start().await;
        assert!(is_acknowledged || self.act(&successor, &act).await, "{name}: the successor refused what was repeated");
        successor
    }

    /// The reasons of the customer's tickets.
    async fn tickets(&self) -> Vec<String> {
        sqlx::query_scalar(
            "select t.reason from tickets t join conversations c on c.id = t.conversation_id where c.psid = $1",
        )
        .bind(&self.psid)
        .fetch_all(&self.installation.ground.db.pool)
        .await
        .unwrap()
    }

    async fn prepared(&self, acts: &[Act]) {
        let process = self.installation.start().await;
        for act in acts {
            assert!(self.act(&process, act).await);
            self.installation.drained().await;
        }
        process.kill_9().await;
    }

    async fn run(&self) {
        let graph = &self.installation.graph;
        let name = self.point.name();
        match scenario(self.point) {
            Scenario::Ask => {
                let process = self.dies_doing(Act::Deliver(self.message(QUESTION))).await;
                self.installation.drained().await;
                process.kill_9().await;
                self.answered_once();
            }
            Scenario::Doubt => {
                graph.set_echoes(EchoPlan::OFF);
                graph.script(Outcome::LostResponse);
                let process = self.dies_doing(Act::Deliver(self.message(QUESTION))).await;
                self.installation.drained().await;
                graph.set_echoes(EchoPlan::default());
                process.kill_9().await;
                self.answered_once();
            }
            Scenario::Ticket => {
                let process =
                    self.dies_doing(Act::Deliver(self.message("I want to talk to a real person please"))).await;
                self.installation.drained().await;
                self.until("the CRM to know", async || {
                    // The dead process's claim holds for longer than a test has patience for.
                    sqlx::query("update ticket_deliveries set claimed_until = now()")
                        .execute(&self.installation.ground.db.pool)
                        .await
                        .unwrap();
                    self.number(
                        "select count(*) from ticket_deliveries d join tickets t on t.id = d.ticket_id
                         join conversations c on c.id = t.conversation_id
                         where c.psid = $1 and d.state = 'delivered'",
                    )
                    .await
                        == 1
                })
                .await;
                process.kill_9().await;
                let ids: Vec<String> = self.crm.taken.lock().await.drain(..).map(|(id, _)| id).collect();
                assert!(ids.iter().all(|id| *id == ids[0]), "{name}: repetitions have one id: {ids:?}");
                assert_eq!(ids.len(), if self.point == Point::TicketPosted { 2 } else { 1 }, "{name}");
                assert_eq!(self.sends().len(), 1, "{name}: one notice");
                assert_eq!(self.owner().await, "human", "{name}");
            }
            Scenario::InboxEcho => {
                self.prepared(&[Act::Deliver(self.message(QUESTION))]).await;
                let (mid, now_ms) = (wire::new_mid(), wire::now_ms());
                graph.record_inbox(PAGE, &self.psid, &mid, "This is Ada, I will help you.");
                let piece =
                    wire::from_page(PAGE, &self.psid, now_ms, wire::inbox_echo(&mid, "This is Ada, I will help you."));
                let process = self.dies_doing(Act::Deliver(wire::body(PAGE, now_ms, vec![piece]))).await;
                self.belongs_to_a_person(process).await;
            }
            Scenario::Takeover => {
                self.prepared(&[Act::Deliver(self.message(QUESTION))]).await;
                let path = format!("/admin/conversations/{}/takeover", self.conversation().await);
                let process = self.dies_doing(Act::Admin(path, json!({}))).await;
                self.belongs_to_a_person(process).await;
            }
            Scenario::Reply => {
                self.prepared(&[Act::Deliver(self.message(QUESTION))]).await;
                let path = format!("/admin/conversations/{}/reply", self.conversation().await);
                let process = self.dies_doing(Act::Admin(path, json!({ "text": "Ada here: yes, we do." }))).await;
                self.installation.drained().await;
                process.kill_9().await;
                let words = self.sends().iter().filter(|text| *text == "Ada here: yes, we do.").count();
                assert_eq!(words, 1, "{name}: {:?}", self.sends());
            }
            Scenario::Handback => {
                self.prepared(&[Act::Deliver(self.message(QUESTION))]).await;
                let id = self.conversation().await;
                self.prepared(&[Act::Admin(format!("/admin/conversations/{id}/takeover"), json!({}))]).await;
                let process =
                    self.dies_doing(Act::Admin(format!("/admin/conversations/{id}/handback"), json!({}))).await;
                // In other words: a question that is repeated goes to a person.
                let again = self.message("Hello, do you ship parcels to Austria?");
                assert!(self.act(&process, &Act::Deliver(again)).await);
                self.installation.drained().await;
                process.kill_9().await;
                assert_eq!(self.sends().len(), 2, "{name}: one answer before, one after");
            }
        }
    }

    fn answered_once(&self) {
        let sends = self.sends();
        assert_eq!(sends.len(), 1, "{}: {sends:?}", self.point.name());
        assert!(sends[0].contains(ANSWER), "{}: {sends:?}", self.point.name());
    }

    /// The machine is silent from here on, and the customer's next message waits for the person.
    async fn belongs_to_a_person(&self, process: Process) {
        let name = self.point.name();
        self.installation.drained().await;
        assert_eq!(self.owner().await, "human", "{name}");
        assert!(self.act(&process, &Act::Deliver(self.message(QUESTION))).await);
        self.installation.drained().await;
        process.kill_9().await;
        assert_eq!(self.sends().len(), 1, "{name}: nothing after the takeover");
        assert_eq!(self.owner().await, "human", "{name}");
    }

    async fn until(&self, what: &str, condition: impl AsyncFn() -> bool) {
        let begin = std::time::Instant::now();
        while !condition().await {
            assert!(begin.elapsed() < PATIENCE, "{}: waited for {what}", self.point.name());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// What is done to the host; doing it again is harmless.
enum Act {
    Deliver(Value),
    /// A call of the admin API by Ada, with the same key each time.
    Admin(String, Value),
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_step_a_host_dies_at_its_successor_finishes_once() {
    let rounds: usize =
        std::env::var("FRONTDESK_FAULT_ROUNDS").map_or(1, |rounds| rounds.parse().expect("a number of rounds"));
    let only = std::env::var("FRONTDESK_FAULT_POINT").ok();
    let (crm, url) = crm().await;
    let installation = Installation::with(|settings| settings.tickets.webhook_url = url).await;
    let first = installation.start().await;
    first.teach_answer().await;
    first.kill_9().await;
    let numbers = AtomicU64::new(0);
    for round in 1..=rounds {
        for &point in Point::ALL.iter().filter(|point| only.as_deref().is_none_or(|only| only == point.name())) {
            let begin = std::time::Instant::now();
            let psid = format!("77{:05}", numbers.fetch_add(1, Ordering::Relaxed));
            let trial = Trial { installation: &installation, crm: &crm, point, psid };
            trial.run().await;
            let expected = if scenario(point) == Scenario::Ticket { 1 } else { 0 };
            let tickets = trial.tickets().await;
            assert_eq!(tickets.len(), expected, "{}: {tickets:?}", point.name());
            println!("round {round}: died at {}, finished in {:.1} s", point.name(), begin.elapsed().as_secs_f64());
        }
    }
    let turns = "select count(*) from (select unnest(mids) as mid from decisions) d group by mid having count(*) > 1";
    let twice: Vec<i64> = sqlx::query_scalar(turns).fetch_all(&installation.ground.db.pool).await.unwrap();
    assert!(twice.is_empty(), "messages were decided twice: {twice:?}");
    assert_eq!(installation.count("select count(*) from inbox where state <> 'done'").await, 0);
}
