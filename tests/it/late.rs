//! What comes late, in another order, or only after an answer was decided: owners, windows and answers follow what happened, not
//! what arrived.

use chrono::{DateTime, Duration, Utc};
use frontdesk_testkit::{EchoPlan, Outcome, wire};
use serde_json::{Value, json};

use crate::host::{ANSWER, APP_ID, Host, OTHER_PAGE, PAGE, QUESTION};
use crate::model::HeldModel;

const OTHER_APP: &str = "999888777666555";
/// What the shipped tone says when a machine's answer must be disclosed.
const DISCLOSURE: &str = "automated assistant";
const HOUR_MS: i64 = 3_600_000;

async fn host() -> Host {
    let host = Host::start_with(|plan| {
        plan.settings.graph.timeout_ms = 400;
        plan.settings.outbox.in_doubt_after_ms = 600;
        plan.settings.outbox.echo_grace_ms = 150;
        plan.settings.outbox.unknown_ticket_after_ms = 300_000;
    })
    .await;
    host.teach_answer().await;
    host
}

/// Posts a piece from a person that happened so long ago.
async fn post_ago(host: &Host, psid: &str, ago_ms: i64, fields: Value) {
    let now_ms = wire::now_ms();
    let piece = wire::from_person(PAGE, psid, now_ms - ago_ms, fields);
    assert_eq!(host.meta.post(&wire::body(PAGE, now_ms, vec![piece])).await.unwrap(), 200);
}

/// Posts a piece from the Page, now.
async fn post_of_page(host: &Host, psid: &str, fields: Value) {
    let now_ms = wire::now_ms();
    let piece = wire::from_page(PAGE, psid, now_ms, fields);
    assert_eq!(host.meta.post(&wire::body(PAGE, now_ms, vec![piece])).await.unwrap(), 200);
}

/// Who opened a person's window, and in how many hours it closes.
async fn window(host: &Host, psid: &str) -> (Option<String>, Option<f64>) {
    let (by, closes_at): (Option<String>, Option<DateTime<Utc>>) =
        sqlx::query_as("select window_opened_by, window_closes_at from conversations where psid = $1")
            .bind(psid)
            .fetch_one(host.pool())
            .await
            .unwrap();
    (by, closes_at.map(|at| (at - Utc::now()).as_seconds_f64() / 3_600.0))
}

fn about(hours: Option<f64>, expected: f64) -> bool {
    hours.is_some_and(|hours| (hours - expected).abs() < 0.1)
}

/// Answers stay queued while the Page pauses.
async fn pause(host: &Host, is_paused: bool) {
    sqlx::query("update pages set paused_until = case when $1 then now() + interval '1 hour' end")
        .bind(is_paused)
        .execute(host.pool())
        .await
        .unwrap();
    host.app.outbox.wake();
}

fn states(rows: &[(String, i32, Option<i32>, Option<i32>)]) -> Vec<&str> {
    rows.iter().map(|row| row.0.as_str()).collect()
}

#[tokio::test]
async fn a_message_from_before_another_app_got_the_thread_does_not_bring_it_back() {
    let host = host().await;
    post_ago(&host, "5101", 10_000, wire::pass_thread_control(Some(APP_ID), Some(OTHER_APP))).await;
    host.read_all().await;
    assert_eq!(host.owner("5101").await, "not_ours");
    // Meta delivers late what was written while the thread was ours.
    post_ago(&host, "5101", 60_000, wire::text("m_5101_late", QUESTION)).await;
    host.drained().await;
    assert_eq!(host.owner("5101").await, "not_ours");
    assert_eq!(host.got("5101"), [""; 0]);
    // What is written now and delivered to us as ours is ours.
    post_ago(&host, "5101", 0, wire::text("m_5101_now", QUESTION)).await;
    host.drained().await;
    assert_eq!(host.owner("5101").await, "bot");
    assert_eq!(host.got("5101").len(), 1);
}

#[tokio::test]
async fn what_the_page_sends_without_the_echo_flag_silences_the_machine() {
    let host = host().await;
    host.ask("5151", QUESTION).await;
    host.drained().await;
    post_of_page(&host, "5151", wire::text("m_5151", "Ada here, I take this.")).await;
    host.read_all().await;
    assert_eq!(host.owner("5151").await, "human");
    host.ask("5151", QUESTION).await;
    host.drained().await;
    assert_eq!(host.got("5151").len(), 1);
    let authors: Vec<String> = host.transcript("5151").await.into_iter().map(|(author, ..)| author).collect();
    assert_eq!(authors, ["customer", "bot", "agent", "customer"]);
}

#[tokio::test]
async fn whoever_else_gets_the_thread_holds_the_machine_from_the_moment_it_is_stored() {
    // Nobody reads here: what is stored is what the sender goes by.
    let host = Host::start_with(|plan| plan.roles.work = false).await;
    let inbox = wire::PAGE_INBOX_APP_ID.to_string();
    let cases = [
        (wire::pass_thread_control(Some(APP_ID), Some(OTHER_APP)), true),
        (wire::pass_thread_control(Some(APP_ID), Some(&inbox)), true),
        (wire::pass_thread_control(Some(OTHER_APP), Some(APP_ID)), false),
        (wire::pass_thread_control(Some(OTHER_APP), None), false),
        (wire::take_thread_control(Some(APP_ID), &inbox), true),
        (wire::take_thread_control(Some(APP_ID), OTHER_APP), true),
        (wire::take_thread_control(Some(OTHER_APP), APP_ID), false),
        (wire::text("m_plain", QUESTION), false),
        (wire::read(1), false),
    ];
    for (index, (fields, _)) in cases.iter().enumerate() {
        post_ago(&host, &format!("52{index:02}"), 0, fields.clone()).await;
    }
    assert_eq!(host.meta.standby("5290", wire::text("m_aside", QUESTION)).await.unwrap(), 200);
    assert_eq!(host.meta.standby("5291", wire::read(1)).await.unwrap(), 200);
    let held: Vec<String> = sqlx::query_scalar("select psid from inbox where is_takeover order by psid")
        .fetch_all(host.pool())
        .await
        .unwrap();
    let mut expected: Vec<String> =
        (0..cases.len()).filter(|index| cases[*index].1).map(|index| format!("52{index:02}")).collect();
    expected.push("5290".to_owned());
    assert_eq!(held, expected);
}

#[tokio::test]
async fn an_ad_opens_the_week_for_the_first_message_after_the_click_and_for_no_later_one() {
    let host = host().await;
    let click = json!({ "referral": { "ref": "r", "ad_id": "604", "source": "ADS", "type": "OPEN_THREAD" } });
    // In order.
    post_ago(&host, "5301", 2 * HOUR_MS, click.clone()).await;
    host.read_all().await;
    assert_eq!(window(&host, "5301").await, (None, None), "a click alone opens nothing");
    post_ago(&host, "5301", HOUR_MS, wire::text("m_5301", QUESTION)).await;
    host.drained().await;
    let (by, hours) = window(&host, "5301").await;
    assert!(by.as_deref() == Some("ad") && about(hours, 7.0 * 24.0 - 1.0), "{by:?} {hours:?}");

    // The click comes after the message that followed it.
    post_ago(&host, "5302", 2 * HOUR_MS, wire::text("m_5302_a", QUESTION)).await;
    host.drained().await;
    assert!(about(window(&host, "5302").await.1, 22.0));
    post_ago(&host, "5302", 3 * HOUR_MS, click).await;
    host.read_all().await;
    let (by, hours) = window(&host, "5302").await;
    assert!(by.as_deref() == Some("ad") && about(hours, 7.0 * 24.0 - 2.0), "{by:?} {hours:?}");
    post_ago(&host, "5302", 0, wire::text("m_5302_b", QUESTION)).await;
    host.drained().await;
    assert!(about(window(&host, "5302").await.1, 7.0 * 24.0 - 2.0), "the next message opens a day of its own");
}

#[tokio::test]
async fn a_changed_rule_changes_the_windows_that_are_opened_from_then_on() {
    let host = Host::start_with(|plan| {
        let rules = &mut plan.settings.window_rules;
        rules.version = "2027-01-01".to_owned();
        rules.message.hours = 12;
        rules.ad_message.hours = 48;
        rules.postback.hours = 0;
        rules.human_agent_hours = 36;
    })
    .await;
    host.teach_answer().await;
    host.ask("5351", QUESTION).await;
    host.drained().await;
    let (by, hours) = window(&host, "5351").await;
    assert!(by.as_deref() == Some("message") && about(hours, 12.0), "{by:?} {hours:?}");
    let id = host.conversation("5351").await;
    let (_, shown) = host.admin("GET", &format!("/admin/conversations/{id}"), None).await;
    let until: DateTime<Utc> = serde_json::from_value(shown["window"]["agent_may_write_until"].clone()).unwrap();
    assert!(about(Some((until - Utc::now()).as_seconds_f64() / 3_600.0), 36.0), "{shown}");

    let click = json!({ "referral": { "ref": "r", "ad_id": "604", "source": "ADS", "type": "OPEN_THREAD" } });
    post_ago(&host, "5352", 2 * HOUR_MS, click).await;
    post_ago(&host, "5352", HOUR_MS, wire::text("m_5352", QUESTION)).await;
    host.drained().await;
    assert!(about(window(&host, "5352").await.1, 47.0));

    post_ago(&host, "5353", HOUR_MS, wire::postback("m_5353", "Get Started", "START")).await;
    host.drained().await;
    assert_eq!(window(&host, "5353").await, (None, None), "a button opens nothing now");
    assert_eq!(host.tickets("5353").await, ["window-closed"]);
}

#[tokio::test]
async fn what_comes_when_its_window_has_closed_is_a_persons_without_asking_a_model() {
    let model = HeldModel::start(&format!("{ANSWER} [1]")).await;
    let settings = model.settings();
    let host = Host::start_with(move |plan| plan.settings.model = settings.clone()).await;
    host.teach_answer().await;
    post_ago(&host, "5401", 25 * HOUR_MS, wire::text("m_5401", QUESTION)).await;
    host.drained().await;
    assert_eq!(host.tickets("5401").await, ["window-closed"]);
    assert!(host.outbox("5401").await.is_empty(), "nothing is queued that may not go");
    assert_eq!(model.asked(), 0);
    let turns = host.turns("5401").await;
    assert_eq!((turns.len(), turns[0]["outcome"].as_str()), (1, Some("ticket")), "{turns:?}");
    // The customer's next word is the machine's.
    assert_eq!(host.owner("5401").await, "bot");
    model.release(1);
    host.ask("5401", QUESTION).await;
    host.drained().await;
    let got = host.got("5401");
    assert!(got.len() == 1 && got[0].contains(DISCLOSURE), "{got:?}");
}

#[tokio::test]
async fn a_link_opens_the_window_of_a_thread_that_only_a_button_began() {
    let host = host().await;
    let link = wire::referral("shelf");
    post_ago(&host, "5501", 0, link.clone()).await;
    host.read_all().await;
    assert_eq!(window(&host, "5501").await, (None, None), "there is no thread yet");
    post_ago(&host, "5502", 30 * HOUR_MS, wire::postback("m_5502", "Get Started", "START")).await;
    host.drained().await;
    assert!(window(&host, "5502").await.1.is_some_and(|hours| hours < 0.0));
    post_ago(&host, "5502", 0, link).await;
    host.read_all().await;
    let (by, hours) = window(&host, "5502").await;
    assert!(by.as_deref() == Some("referral") && about(hours, 24.0), "{by:?} {hours:?}");
}

#[tokio::test]
async fn an_answer_that_waits_is_taken_back_when_its_question_changes() {
    let host = host().await;
    pause(&host, true).await;
    let mid = host.ask("5601", QUESTION).await;
    host.until_outbox("5601", &["queued"]).await;
    let edited = "Do you ship parcels to Austria?";
    post_ago(&host, "5601", 0, wire::edit(&mid, edited, 1)).await;
    host.until_outbox("5601", &["void", "queued"]).await;

    // Of two questions one is withdrawn, and the other is still answered.
    let now_ms = wire::now_ms();
    let pieces = vec![
        wire::from_person(PAGE, "5602", now_ms - 2, wire::text("m_5602_a", QUESTION)),
        wire::from_person(PAGE, "5602", now_ms - 1, wire::text("m_5602_b", "How long does a parcel take to Austria?")),
    ];
    assert_eq!(host.meta.post(&wire::body(PAGE, now_ms, pieces)).await.unwrap(), 200);
    host.until_outbox("5602", &["queued"]).await;
    post_ago(&host, "5602", 0, wire::unsend("m_5602_b")).await;
    host.until_outbox("5602", &["void", "queued"]).await;

    // A question that is withdrawn altogether is not answered at all.
    host.ask("5603", QUESTION).await;
    host.until_outbox("5603", &["queued"]).await;
    let only: String =
        sqlx::query_scalar("select mid from inbox where psid = '5603'").fetch_one(host.pool()).await.unwrap();
    post_ago(&host, "5603", 0, wire::unsend(&only)).await;
    host.until_outbox("5603", &["void"]).await;

    pause(&host, false).await;
    host.drained().await;
    let got = host.got("5601");
    assert!(got.len() == 1 && got[0].contains(ANSWER) && got[0].contains(DISCLOSURE), "{got:?}");
    let outcomes: Vec<Value> = host.turns("5601").await.into_iter().map(|turn| turn["outcome"].clone()).collect();
    assert!(outcomes.len() == 2 && outcomes.contains(&json!("superseded")), "{outcomes:?}");
    assert_eq!(host.said("5601").await, [edited]);
    let attempts = host.count("select coalesce(max(attempts), 0)::bigint from inbox").await;
    assert!(attempts <= 1, "a change of mind is no failed attempt: {attempts}");

    assert_eq!(host.got("5602").len(), 1);
    let turns = host.turns("5602").await;
    let last: Vec<&Value> = turns.iter().filter(|turn| turn["outcome"] != "superseded").collect();
    assert!(last.len() == 1 && last[0]["mids"] == json!(["m_5602_a"]), "{turns:?}");
    assert_eq!(host.got("5603"), [""; 0]);
    // What said that a machine speaks never left, so the next answer says it.
    host.ask("5603", QUESTION).await;
    host.drained().await;
    let got = host.got("5603");
    assert!(got.len() == 1 && got[0].contains(DISCLOSURE), "{got:?}");

    // An answer that has left stays.
    post_ago(&host, "5601", 0, wire::edit(&mid, "Do you ship to Austria, too?", 2)).await;
    host.drained().await;
    assert_eq!(states(&host.outbox("5601").await), ["void", "sent"]);
    assert_eq!(host.turns("5601").await.len(), 2);
}

#[tokio::test]
async fn words_of_the_page_that_it_withdraws_are_erased_too() {
    let host = host().await;
    host.ask("5701", QUESTION).await;
    host.drained().await;
    let (mid, _) = host.meta.inbox_echo("5701", "secret-word of Ada").await.unwrap();
    host.read_all().await;
    let unsent = json!({ "message": { "mid": mid, "is_echo": true, "is_deleted": true } });
    post_of_page(&host, "5701", unsent).await;
    // The other way round.
    post_of_page(&host, "5701", json!({ "message": { "mid": "m_5701", "is_echo": true, "is_deleted": true } })).await;
    host.read_all().await;
    post_of_page(&host, "5701", wire::inbox_echo("m_5701", "secret-word again")).await;
    host.read_all().await;
    for mid in [mid.as_str(), "m_5701"] {
        let kept: i64 = sqlx::query_scalar(
            "select (select count(*) from inbox where mid = $1 and kind = 'echo' and (sealed is not null or payload <> '{}'))
                  + (select count(*) from messages where mid = $1 and text <> '')",
        )
        .bind(mid)
        .fetch_one(host.pool())
        .await
        .unwrap();
        assert_eq!(kept, 0, "{mid}");
    }
    assert_eq!(host.owner("5701").await, "human", "it was a person's word all the same");
}

#[tokio::test]
async fn an_echo_proves_a_send_whatever_id_it_gives_the_person_or_the_message() {
    let host = host().await;
    host.graph.set_echoes(EchoPlan::OFF);
    for _ in 0..50 {
        host.graph.script_on("conversations", Outcome::error(2, 0));
    }
    // Sent to a plugin's `user_ref`; the echo names the person by the id that the Page now has.
    let guest = format!("{}guest-5801", wire::USER_REF);
    host.graph.script(Outcome::LostResponse);
    assert_eq!(host.meta.from_person(&guest, wire::postback("m_5801", QUESTION, "ASK")).await.unwrap(), 200);
    host.until_outbox(&guest, &["unknown"]).await;
    let sent = host.graph.sends_to(&guest)[0].clone();
    let echo = wire::echo(&sent.message_id, &sent.text, APP_ID.parse().unwrap(), sent.metadata.as_deref());
    post_of_page(&host, "5801", echo).await;
    host.until_outbox(&guest, &["sent"]).await;
    assert_eq!(host.owner("5801").await, "bot");

    // Without an id of its own, and then with it.
    host.graph.script(Outcome::LostResponse);
    host.ask("5802", QUESTION).await;
    host.until_outbox("5802", &["unknown"]).await;
    let sent = host.graph.sends_to("5802")[0].clone();
    let mut echo = wire::echo(&sent.message_id, &sent.text, APP_ID.parse().unwrap(), sent.metadata.as_deref());
    let named = echo.clone();
    echo["message"].as_object_mut().unwrap().remove("mid");
    post_of_page(&host, "5802", echo).await;
    host.until_outbox("5802", &["sent"]).await;
    let known = async || -> Option<String> {
        sqlx::query_scalar("select message_id from outbox where psid = '5802'").fetch_one(host.pool()).await.unwrap()
    };
    assert_eq!(known().await, None);
    post_of_page(&host, "5802", named).await;
    host.drained().await;
    assert_eq!(known().await, Some(sent.message_id.clone()));
    let story = host.transcript("5802").await;
    assert_eq!(story.len(), 2, "{story:?}");
    assert_eq!(story[1].1, sent.message_id);
    assert_eq!(host.graph.sends().len(), 2, "nothing was sent again");
}

#[tokio::test]
async fn a_dead_token_or_a_limit_shows_in_a_look_up_too() {
    let host = host().await;
    host.graph.set_echoes(EchoPlan::OFF);
    let state = async || -> (String, Option<DateTime<Utc>>) {
        sqlx::query_as("select state, paused_until from pages where page_id = $1")
            .bind(PAGE)
            .fetch_one(host.pool())
            .await
            .unwrap()
    };
    host.graph.script_on("conversations", Outcome::error(190, 463));
    host.graph.script(Outcome::LostResponse);
    host.ask("5901", QUESTION).await;
    host.until("the Page is parked", async || state().await.0 == "parked").await;
    let (status, _) = host.admin("POST", &format!("/admin/pages/{PAGE}/resume"), None).await;
    assert_eq!(status, 200);
    host.until_outbox("5901", &["sent"]).await;

    host.graph.script_on("conversations", Outcome::RateLimited { code: 80_006, regain_after_minutes: 3 });
    host.graph.script(Outcome::LostResponse);
    host.ask("5902", QUESTION).await;
    host.until("the Page pauses", async || state().await.1.is_some_and(|at| at > Utc::now() + Duration::seconds(150)))
        .await;
    assert_eq!(states(&host.outbox("5902").await), ["unknown"], "nobody asks Meta while it limits");
    pause(&host, false).await;
    host.until_outbox("5902", &["sent"]).await;
    host.drained().await;
    assert_eq!((host.got("5901").len(), host.got("5902").len()), (1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_that_meta_blocked_stays_so_whatever_becomes_of_its_token() {
    let host = host().await;
    let enforce = async |action: &str| {
        let mut piece = wire::policy_enforcement(action, "spam");
        piece["recipient"] = json!({ "id": PAGE });
        assert_eq!(host.meta.post(&wire::body(PAGE, wire::now_ms(), vec![piece])).await.unwrap(), 200);
    };
    enforce("block").await;
    host.until("stopped", async || host.page_state(PAGE).await == "stopped").await;
    host.graph.kill_token(PAGE, 460);
    let (status, _) = host.admin("POST", &format!("/admin/pages/{PAGE}/check"), None).await;
    assert_eq!((status, host.page_state(PAGE).await.as_str()), (200, "stopped"));
    host.graph.renew_token(PAGE, "a new token");
    let body = json!({ "user_token": "sim-user-4711", "page_id": PAGE });
    let (status, connected) = host.admin("POST", "/admin/pages", Some(body)).await;
    assert_eq!((status, &connected["page"]["state"]), (200, &json!("stopped")), "{connected}");
    host.ask("6001", QUESTION).await;
    host.until_outbox("6001", &["queued"]).await;
    assert_eq!(host.graph.sends().len(), 0);
    enforce("unblock").await;
    host.drained().await;
    assert_eq!((host.page_state(PAGE).await.as_str(), host.got("6001").len()), ("active", 1));

    // A block that a send meets first is lifted by Meta's word as well.
    host.graph.script(Outcome::error(368, 0));
    host.ask("6002", QUESTION).await;
    host.until("stopped again", async || host.page_state(PAGE).await == "stopped").await;
    enforce("block").await;
    enforce("unblock").await;
    host.drained().await;
    assert_eq!((host.page_state(PAGE).await.as_str(), host.got("6002").len()), ("active", 1));
}

#[tokio::test]
async fn a_page_whose_sends_hang_leaves_places_to_another() {
    let host = Host::start_with(|plan| {
        plan.settings.outbox.concurrency = 4;
        plan.settings.outbox.in_doubt_after_ms = 60_000;
        plan.settings.graph.timeout_ms = 20_000;
    })
    .await;
    host.teach_answer().await;
    let slow: Vec<String> = (0..6).map(|at| format!("61{at:02}")).collect();
    for _ in 0..3 {
        host.graph.script(Outcome::Hang { is_taken: false });
    }
    for psid in &slow {
        host.ask(psid, QUESTION).await;
    }
    let count = async |state: &'static str| {
        sqlx::query_scalar::<_, i64>("select count(*) from outbox where page_id = $1 and state = $2")
            .bind(PAGE)
            .bind(state)
            .fetch_one(host.pool())
            .await
            .unwrap()
    };
    host.until("as many hang as may", async || (count("sending").await, count("queued").await) == (3, 3)).await;
    host.meta_of(OTHER_PAGE).text("6190", QUESTION).await.unwrap();
    host.until_outbox("6190", &["sent"]).await;
    assert_eq!((count("sending").await, count("queued").await), (3, 3), "the other Page did not wait for this one");
}
