//! Who asks, and what becomes of it in odd cases: people whom only a plugin knows, corrections far behind their question, and a
//! second matter while the first waits for a person.

use frontdesk_server::records::{Decision, Form};
use frontdesk_testkit::{EchoPlan, Outcome, wire};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::host::{ANSWER, APP_ID, Host, PAGE, QUESTION};

/// Meta's own app, which asks the questions of a lead ad.
const LEAD_APP: u64 = 413_038_776_280_800;

#[tokio::test]
async fn a_person_whom_only_a_plugin_knows_is_answered_by_their_user_ref() {
    let host = Host::start().await;
    host.teach_answer().await;
    let guest = format!("{}guest-7_A", wire::USER_REF);
    host.graph.record_inbound(PAGE, &guest, "m_guest", QUESTION);
    assert_eq!(host.meta.from_person(&guest, wire::postback("m_guest", QUESTION, "ASK")).await.unwrap(), 200);
    host.drained().await;
    let sent = host.graph.sends_to(&guest);
    assert_eq!(sent.len(), 1, "{sent:?}");
    assert!(sent[0].text.contains(ANSWER), "{}", sent[0].text);
    assert_eq!(sent[0].body["recipient"], json!({ "user_ref": "guest-7_A" }));
    assert_eq!(host.outbox(&guest).await[0].0, "sent");

    // An opt-in asks nothing: it is kept with the person, and nobody is bothered.
    let other = format!("{}guest-8", wire::USER_REF);
    let piece = json!({ "recipient": { "id": PAGE }, "timestamp": wire::now_ms(),
                        "optin": { "ref": "checkout", "user_ref": "guest-8" } });
    assert_eq!(host.meta.post(&wire::body(PAGE, wire::now_ms(), vec![piece])).await.unwrap(), 200);
    host.drained().await;
    assert_eq!(host.got(&other), [""; 0]);
    assert_eq!(host.owner(&other).await, "bot", "there is a conversation to look at");

    // What Meta refuses for such a person becomes a person's matter.
    let third = format!("{}guest-9", wire::USER_REF);
    host.graph.script(Outcome::error(100, 2_018_001));
    assert_eq!(host.meta.from_person(&third, wire::postback("m_third", QUESTION, "ASK")).await.unwrap(), 200);
    host.drained().await;
    assert_eq!(host.got(&third), [""; 0]);
    assert_eq!(host.tickets(&third).await, ["delivery-failed"]);
}

#[tokio::test]
async fn a_person_whom_a_plugin_knew_is_the_same_under_the_psid_that_meta_tells_later() {
    let host = Host::start_with(|plan| plan.settings.graph.app_id = APP_ID.to_owned()).await;
    host.teach_answer().await;
    host.graph.set_echoes(EchoPlan::OFF);
    let echo_to = async |guest: &str, psid: &str| {
        let sent = host.graph.sends_to(guest)[0].clone();
        let fields = wire::echo(&sent.message_id, &sent.text, APP_ID.parse().unwrap(), sent.metadata.as_deref());
        let piece = wire::from_page(PAGE, psid, wire::now_ms(), fields);
        assert_eq!(host.meta.post(&wire::body(PAGE, wire::now_ms(), vec![piece])).await.unwrap(), 200);
        host.drained().await;
    };
    let (guest, other) = (format!("{}guest-21", wire::USER_REF), format!("{}guest-22", wire::USER_REF));
    for (guest, mid) in [(&guest, "m_g21"), (&other, "m_g22")] {
        assert_eq!(host.meta.from_person(guest, wire::postback(mid, QUESTION, "ASK")).await.unwrap(), 200);
        host.drained().await;
    }
    // A person took the first over before Meta's echo names the PSID: the machine stays silent there too.
    let id = host.conversation(&guest).await;
    let path = format!("/admin/conversations/{id}/takeover");
    assert_eq!(host.admin("POST", &path, Some(json!({ "reason": "a guest" }))).await.0, 200);
    echo_to(&guest, "88120021").await;
    assert_eq!(host.owner("88120021").await, "human");
    host.ask("88120021", QUESTION).await;
    host.drained().await;
    assert_eq!(host.got("88120021"), [""; 0]);

    // The second is the machine's, and stays so.
    echo_to(&other, "88120022").await;
    host.ask("88120022", QUESTION).await;
    host.drained().await;
    assert_eq!(host.got("88120022").len(), 1);

    for (one, two) in [(guest.as_str(), "88120021"), ("88120021", guest.as_str())] {
        let id = host.conversation(one).await;
        let (_, shown) = host.admin("GET", &format!("/admin/conversations/{id}"), None).await;
        assert_eq!(shown["also_known_as"], json!([two]), "{shown}");
    }
    // Who is forgotten is forgotten under both, by whichever id it is asked.
    sqlx::query("update outbox set settled_at = now() - interval '1 minute'").execute(host.pool()).await.unwrap();
    for (asked, both) in [("88120021", [guest.as_str(), "88120021"]), (other.as_str(), [other.as_str(), "88120022"])] {
        let (status, answer) = host.admin("POST", &format!("/admin/people/{PAGE}/{asked}/erase"), None).await;
        assert_eq!(status, 200, "{answer}");
        host.until("the person is forgotten", async || {
            host.count("select count(*) from erasures where state = 'queued'").await == 0
        })
        .await;
        for key in both {
            for table in ["conversations", "inbox", "outbox", "person_keys"] {
                let left: i64 =
                    sqlx::query_scalar(sqlx::AssertSqlSafe(format!("select count(*) from {table} where psid = $1")))
                        .bind(key)
                        .fetch_one(host.pool())
                        .await
                        .unwrap();
                assert_eq!(left, 0, "{key} in {table}");
            }
        }
    }
}

#[tokio::test]
async fn corrections_count_however_many_events_wait_before_them() {
    let works = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let role = std::sync::Arc::clone(&works);
    let host = Host::start_with(move |plan| {
        plan.roles.work = role.load(std::sync::atomic::Ordering::SeqCst);
        plan.settings.turn.events_max = 3;
    })
    .await;
    host.teach_answer().await;
    let start_ms = wire::now_ms() - 60_000;
    let post = async |psid: &str, after_ms: i64, fields: Value| {
        let piece = wire::from_person(PAGE, psid, start_ms + after_ms, fields);
        assert_eq!(host.meta.post(&wire::body(PAGE, start_ms, vec![piece])).await.unwrap(), 200);
    };
    // Two conversations: the first question is edited in one and withdrawn in the other, ten messages later.
    for psid in ["3101", "3102"] {
        post(psid, 0, wire::text(&format!("m_{psid}_first"), "What does the secret-word cost?")).await;
        for at in 1..10 {
            post(psid, at, wire::text(&format!("m_{psid}_{at}"), "Thank you!")).await;
        }
    }
    post("3101", 20, wire::edit("m_3101_first", QUESTION, 1)).await;
    post("3102", 20, wire::unsend("m_3102_first")).await;
    works.store(true, std::sync::atomic::Ordering::SeqCst);
    let host = host.restart().await;
    host.drained().await;

    assert!(host.got("3101")[0].contains(ANSWER), "the edited words are answered: {:?}", host.got("3101"));
    assert!(host.got("3102").iter().all(|text| !text.contains(ANSWER)), "{:?}", host.got("3102"));
    let decisions = host.app.records.all_after(None, None, 100, Form::Clear).await.unwrap();
    assert!(decisions.iter().any(Decision::has_record), "{decisions:?}");
    let mut decided: Vec<String> = decisions.iter().map(|decision| decision.record.to_string()).collect();
    for psid in ["3101", "3102"] {
        decided.extend(host.said(psid).await);
    }
    assert!(decided.iter().all(|text| !text.contains("secret-word")), "the first words are nowhere");
    let attempts = host.count("select coalesce(max(attempts), 0)::bigint from inbox").await;
    assert!(attempts <= 1, "a correction is no failed attempt: {attempts}");
}

#[tokio::test]
async fn a_second_matter_is_added_to_the_open_ticket_and_told_to_the_crm() {
    let host = Host::start_with(|plan| plan.settings.tickets.webhook_url = "http://127.0.0.1:9/tickets".into()).await;
    host.teach_answer().await;
    // A send that is refused for good leaves the conversation with the machine and a ticket for people.
    host.graph.script(Outcome::error(551, 0));
    let first = host.ask("3201", QUESTION).await;
    host.drained().await;
    assert_eq!(host.tickets("3201").await, ["delivery-failed"]);
    let second = host.ask("3201", "I want to talk to a real person please").await;
    host.drained().await;

    let open: Vec<Uuid> = sqlx::query_scalar(
        "select t.id from tickets t join conversations c on c.id = t.conversation_id where c.psid = '3201'",
    )
    .fetch_all(host.pool())
    .await
    .unwrap();
    assert_eq!(open.len(), 1, "one ticket per conversation: {open:?}");
    let path = format!("/admin/tickets/{}", open[0]);
    let (_, shown) = host.admin("GET", &path, None).await;
    let ticket = &shown["ticket"];
    let reasons: Vec<&str> =
        ticket["matters"].as_array().unwrap().iter().map(|matter| matter["reason"].as_str().unwrap()).collect();
    assert_eq!(reasons.len(), 2, "{ticket}");
    assert_eq!(reasons[0], "delivery-failed");
    assert_eq!(ticket["reason"], reasons[1], "lists show the newest");
    assert_ne!(reasons[1], "delivery-failed");
    assert_eq!(ticket["priority"], "high", "the highest of both");
    assert_eq!(ticket["repeats"], 1);
    let mids: Vec<&str> =
        ticket["transcript"].as_array().unwrap().iter().map(|message| message["mid"].as_str().unwrap()).collect();
    assert!(mids.contains(&first.as_str()) && mids.contains(&second.as_str()), "{mids:?}");
    let told: Vec<String> =
        sqlx::query_scalar("select event from ticket_deliveries order by id").fetch_all(host.pool()).await.unwrap();
    assert_eq!(told, ["ticket.opened", "ticket.repeated"]);

    // What the customer withdraws goes from its matter alone.
    assert_eq!(host.meta.from_person("3201", wire::unsend(&second)).await.unwrap(), 200);
    host.drained().await;
    let (_, shown) = host.admin("GET", &path, None).await;
    let matters = &shown["ticket"]["matters"];
    assert_eq!(matters.as_array().map(Vec::len), Some(2), "{shown}");
    assert_eq!(matters[1]["summary"], "The customer withdrew the message.", "{matters}");
    assert_ne!(matters[0]["summary"], matters[1]["summary"], "{matters}");
    assert!(matters[0]["summary"].as_str().unwrap().contains("did not reach the customer"), "{matters}");
}

#[tokio::test]
async fn metas_own_questions_silence_the_machine_until_they_are_answered() {
    let host = Host::start().await;
    host.teach_answer().await;
    let asks = async |psid: &str, mid: &str| {
        let now_ms = wire::now_ms();
        let piece = wire::from_page(PAGE, psid, now_ms, wire::echo(mid, "Which size?", LEAD_APP, None));
        assert_eq!(host.meta.post(&wire::body(PAGE, now_ms, vec![piece])).await.unwrap(), 200);
        host.read_all().await;
    };
    let lead = |kind: &str| {
        json!({ "referral": { "type": kind, "source": "ADS", "ad_id": "604" },
                "lead": { "data": [{ "question": "What would you like to know?", "answer": QUESTION }] } })
    };
    let summary = json!({ "message": { "mid": "m_summary", "text": QUESTION,
                                       "hop_context": [{ "app_id": LEAD_APP, "metadata": "lead" }] } });
    for (psid, end) in [("3501", lead("LEAD_COMPLETE")), ("3502", summary)] {
        asks(psid, &format!("m_asked_{psid}")).await;
        host.ask(psid, "M").await;
        assert_eq!(host.meta.from_person(psid, lead("LEAD_INCOMPLETE")).await.unwrap(), 200);
        host.drained().await;
        assert_eq!((host.owner(psid).await.as_str(), host.turns(psid).await.len()), ("human", 0), "{psid}");
        assert_eq!(host.meta.from_person(psid, end).await.unwrap(), 200);
        host.drained().await;
        assert_eq!(host.turns(psid).await.len(), 1, "{psid}");
        // The shipped policies give leads to people, and say so.
        assert_eq!(host.got(psid).len(), 1, "{psid}");
    }
    assert!(host.got("3502")[0].contains(ANSWER), "{:?}", host.got("3502"));
    // A person who has the conversation by then keeps it.
    asks("3503", "m_asked_3503").await;
    host.meta.inbox_echo("3503", "Ada here.").await.unwrap();
    host.read_all().await;
    assert_eq!(host.meta.from_person("3503", lead("LEAD_COMPLETE")).await.unwrap(), 200);
    host.drained().await;
    assert_eq!((host.owner("3503").await.as_str(), host.turns("3503").await.len()), ("human", 0));
}
