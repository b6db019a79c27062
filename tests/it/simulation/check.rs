//! What must hold after any schedule.

use std::collections::{HashMap, HashSet};
use std::fmt;

use chrono::{DateTime, Utc};
use frontdesk_server::outbox::row_of_metadata;
use frontdesk_testkit::SentMessage;
use uuid::Uuid;

use super::schedule::{HOUR_MS, Kind};
use super::world::{QUIET_HOURS, World, page_id, psid};

const DAY_MS: i64 = 24 * HOUR_MS;

/// What came of it all, for people.
#[derive(Debug, Default)]
pub struct Report {
    inquiries: usize,
    answered: usize,
    to_people: usize,
    withdrawn: usize,
    sends: usize,
    in_doubt: usize,
    tagged: usize,
    deaths: usize,
    tickets: i64,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { inquiries, answered, to_people, withdrawn, sends, in_doubt, tagged, deaths, tickets } = self;
        write!(
            f,
            "{inquiries} inquiries: {answered} answered, {to_people} with people, {withdrawn} withdrawn; {sends} messages \
             taken by Meta, {tagged} as HUMAN_AGENT, {in_doubt} in doubt, {tickets} tickets; the host died {deaths} times"
        )
    }
}

/// Meta's error subcode for a send outside the window.
const WINDOW_CLOSED: i32 = 2_018_278;

#[derive(Debug, Clone, sqlx::FromRow)]
struct Row {
    id: Uuid,
    conversation_id: Uuid,
    turn_id: Option<Uuid>,
    seq: i64,
    psid: String,
    author: String,
    state: String,
    error_subcode: Option<i32>,
    settled_at: Option<DateTime<Utc>>,
}

/// A message of a customer, as the host kept it.
#[derive(Debug, Clone, sqlx::FromRow)]
struct Kept {
    mid: String,
    state: String,
    note: Option<String>,
    turn_id: Option<Uuid>,
    conversation_id: Uuid,
}

pub async fn check(world: &World) -> Report {
    let rows: Vec<Row> = sqlx::query_as(
        "select id, conversation_id, turn_id, seq, psid, author, state, error_subcode, settled_at
             from outbox order by seq",
    )
    .fetch_all(&world.pool)
    .await
    .unwrap();
    let sends = world.host.graph.sends();
    let mut report = Report { sends: sends.len(), deaths: world.deaths, ..Report::default() };
    nothing_is_sent_twice_or_lost(&rows, &sends, &mut report);
    order_is_kept(&rows, &sends);
    windows_are_kept(world, &rows, &sends);
    tags_are_a_persons(world, &rows, &sends, &mut report).await;
    takeovers_are_kept(world, &rows, &sends).await;
    inquiries_are_settled(world, &rows, &mut report).await;
    // Otherwise the schedule shows how people work, not how the host does. A short run may be an unlucky one.
    let asked = report.inquiries - report.withdrawn;
    assert!(asked < 150 || report.answered * 2 > asked, "most inquiries are to be the machine's: {report}");
    counts_add_up(world, &mut report).await;
    withdrawn_words_are_nowhere(world).await;
    report
}

/// The row that a send belongs to.
fn row_of(sent: &SentMessage) -> Uuid {
    sent.metadata.as_deref().and_then(row_of_metadata).expect("everything we send names its row")
}

fn nothing_is_sent_twice_or_lost(rows: &[Row], sends: &[SentMessage], report: &mut Report) {
    let mut taken: HashMap<Uuid, usize> = HashMap::new();
    for sent in sends {
        *taken.entry(row_of(sent)).or_default() += 1;
    }
    for row in rows {
        let count = taken.remove(&row.id).unwrap_or(0);
        match row.state.as_str() {
            "sent" => assert_eq!(count, 1, "counted as sent: {row:?}"),
            "failed" | "void" => assert_eq!(count, 0, "sent all the same: {row:?}"),
            "unknown" => {
                assert!(count <= 1, "sent twice: {row:?}");
                report.in_doubt += 1;
            }
            other => panic!("{other} after everything came to rest: {row:?}"),
        }
    }
    assert!(taken.is_empty(), "sends of rows that do not exist: {taken:?}");
}

/// Within a conversation what was committed first arrives first.
fn order_is_kept(rows: &[Row], sends: &[SentMessage]) {
    let seq_of: HashMap<Uuid, (Uuid, i64)> = rows.iter().map(|row| (row.id, (row.conversation_id, row.seq))).collect();
    let mut latest: HashMap<Uuid, i64> = HashMap::new();
    for sent in sends {
        let (conversation, seq) = seq_of[&row_of(sent)];
        let before = latest.insert(conversation, seq);
        assert!(before.is_none_or(|before| before < seq), "{seq} was sent after {before:?} in {conversation}");
    }
}

fn is_bot(rows: &[Row], sent: &SentMessage) -> bool {
    let id = row_of(sent);
    rows.iter().any(|row| row.id == id && row.author == "bot")
}

fn windows_are_kept(world: &World, rows: &[Row], sends: &[SentMessage]) {
    for sent in sends.iter().filter(|sent| sent.tag.is_none() && is_bot(rows, sent)) {
        let open = world.told.iter().any(|told| {
            let delivery = &told.delivery;
            let opens = delivery.kind.inquiry().is_some()
                || matches!(delivery.kind, Kind::Reaction { .. } | Kind::Sticker { .. });
            let at_ms = world.stamp_ms(delivery.happened_ms);
            let delivered = world.stamp_ms(told.delivered_ms);
            opens
                && psid(delivery.customer) == sent.psid
                && world.stamp_ms(told.posted_ms) <= sent.at_ms
                // The event's own time, but never later than its delivery.
                && sent.at_ms < at_ms.min(delivered) + DAY_MS + 1_000
        });
        assert!(open, "sent outside the window: {sent:?}");
    }
}

/// HUMAN_AGENT stands on what a person wrote alone, never within the window that needs no tag (unless Meta says that it is
/// closed), and never more than a week after the customer's last message; what a person wrote goes without it only within the
/// window.
async fn tags_are_a_persons(world: &World, rows: &[Row], sends: &[SentMessage], report: &mut Report) {
    for sent in sends.iter().filter(|sent| sent.tag.is_some() || !is_bot(rows, sent)) {
        let wrote = |told: &&super::world::Told| {
            psid(told.delivery.customer) == sent.psid && world.stamp_ms(told.posted_ms) <= sent.at_ms
        };
        let age_ms = |told: &super::world::Told| {
            sent.at_ms - world.stamp_ms(told.delivery.happened_ms).min(world.stamp_ms(told.delivered_ms))
        };
        let opens = |told: &&super::world::Told| {
            told.delivery.kind.inquiry().is_some()
                || matches!(told.delivery.kind, Kind::Reaction { .. } | Kind::Sticker { .. })
        };
        let youngest = world.told.iter().filter(wrote).filter(opens).map(age_ms).min();
        let youngest = youngest.unwrap_or_else(|| panic!("to somebody who never wrote: {sent:?}"));
        match sent.tag.as_deref() {
            None => assert!(youngest <= DAY_MS + 1_000, "without a tag {youngest} ms after the last act: {sent:?}"),
            Some(tag) => {
                assert_eq!(tag, "HUMAN_AGENT", "{sent:?}");
                assert!(!is_bot(rows, sent), "the machine's own words under a person's tag: {sent:?}");
                // Meta has the last word on its window: it had refused a send since, and said that it is closed.
                let was_refused = || {
                    let refused =
                        rows.iter().filter(|row| row.psid == sent.psid && row.error_subcode == Some(WINDOW_CLOSED));
                    let mut at_ms = refused.filter_map(|row| row.settled_at).map(|at| at.timestamp_millis());
                    at_ms.any(|at_ms| (sent.at_ms - youngest..=sent.at_ms).contains(&at_ms))
                };
                let is_past = (DAY_MS - 1_000..=7 * DAY_MS + 1_000).contains(&youngest);
                let is_due = is_past || youngest < DAY_MS && was_refused();
                if !is_due {
                    let told = world.told.iter().find(|told| psid(told.delivery.customer) == sent.psid);
                    let story = world.story(told.map_or(0, |told| told.delivery.customer)).await;
                    panic!("a tag {youngest} ms after the last act: {sent:?}\n{story}");
                }
                report.tagged += 1;
            }
        }
    }
}

/// From a word or act of a person on, the machine says nothing until it is handed back, or nobody has said anything for hours.
async fn takeovers_are_kept(world: &World, rows: &[Row], sends: &[SentMessage]) {
    for silence in &world.silences {
        let psid = psid(silence.customer);
        let from_ms = world.stamp_ms(silence.from_ms);
        let quiet_ms = from_ms + QUIET_HOURS * HOUR_MS - 60_000;
        let until_ms = silence.until_ms.map_or(quiet_ms, |until| world.stamp_ms(until).min(quiet_ms));
        let spoke = sends
            .iter()
            .find(|sent| sent.psid == psid && (from_ms + 1..until_ms).contains(&sent.at_ms) && is_bot(rows, sent));
        if let Some(spoke) = spoke {
            panic!("the machine spoke after {silence:?}: {:?}\n{}", spoke.text, world.story(silence.customer).await);
        }
    }
}

async fn inquiries_are_settled(world: &World, rows: &[Row], report: &mut Report) {
    let kept: Vec<Kept> = sqlx::query_as(
        "select i.mid, i.state, i.note, i.turn_id, c.id as conversation_id
         from inbox i join conversations c on c.page_id = i.page_id and c.psid = i.psid
         where i.kind in ('message', 'postback') and i.channel = 'messaging' and i.mid is not null",
    )
    .fetch_all(&world.pool)
    .await
    .unwrap();
    let kept: HashMap<&str, &Kept> = kept.iter().map(|kept| (kept.mid.as_str(), kept)).collect();
    let decided: Vec<(String, Uuid, String)> =
        sqlx::query_as("select unnest(mids), turn_id, outcome from decisions").fetch_all(&world.pool).await.unwrap();
    let mut decisions: HashMap<&str, Vec<(Uuid, &str)>> = HashMap::new();
    for (mid, turn_id, outcome) in &decided {
        decisions.entry(mid).or_default().push((*turn_id, outcome));
    }
    let ticketed: HashSet<Uuid> = sqlx::query_scalar("select conversation_id from tickets")
        .fetch_all(&world.pool)
        .await
        .unwrap()
        .into_iter()
        .collect();
    let unsent: HashSet<&str> = world.told.iter().filter_map(|told| unsent_mid(&told.delivery.kind)).collect();
    let mut seen = HashSet::new();
    for told in world.told.iter().filter(|told| !told.delivery.in_standby) {
        let Some((mid, _)) = told.delivery.kind.inquiry() else { continue };
        if !seen.insert(mid) {
            continue;
        }
        report.inquiries += 1;
        let inquiry = kept.get(mid).unwrap_or_else(|| panic!("{mid} was acknowledged and is not kept"));
        assert_eq!(inquiry.state, "done", "{inquiry:?}");
        if unsent.contains(mid) {
            report.withdrawn += 1;
            continue;
        }
        // An answer that was taken back because its question changed is the matter of a later turn, or of a person.
        if let Some(of_mid) = decisions.get_mut(mid) {
            of_mid.retain(|(turn_id, outcome)| *outcome != "superseded" || inquiry.turn_id == Some(*turn_id));
        }
        match decisions.get(mid).map(Vec::as_slice).filter(|of_mid| !of_mid.is_empty()) {
            Some([(turn_id, outcome)]) => {
                assert_eq!(inquiry.turn_id, Some(*turn_id), "{inquiry:?}");
                let parts: Vec<&Row> = rows.iter().filter(|row| row.turn_id == Some(*turn_id)).collect();
                let is_sent = !parts.is_empty() && parts.iter().all(|row| row.state == "sent");
                if is_sent && *outcome != "ticket" {
                    report.answered += 1;
                } else if matches!(*outcome, "ignored" | "spam") {
                    assert!(parts.is_empty(), "{parts:?}");
                } else if parts.iter().any(|row| row.state == "void") || *outcome == "superseded" {
                    // A person or another app had the conversation by then.
                    report.to_people += 1;
                } else {
                    assert!(
                        ticketed.contains(&inquiry.conversation_id),
                        "neither answered nor ticketed: {mid} {outcome} {parts:?}"
                    );
                    report.to_people += 1;
                }
            }
            Some(more) => panic!("{mid} was decided {} times: {more:?}", more.len()),
            None => {
                assert_eq!(
                    inquiry.note.as_deref(),
                    Some("a person or another app answers"),
                    "{mid} is nobody's: {inquiry:?}"
                );
                report.to_people += 1;
            }
        }
    }
}

fn unsent_mid(kind: &Kind) -> Option<&str> {
    match kind {
        Kind::Unsend { mid } => Some(mid),
        _ => None,
    }
}

async fn counts_add_up(world: &World, report: &mut Report) {
    let count = async |query: &'static str| -> i64 { sqlx::query_scalar(query).fetch_one(&world.pool).await.unwrap() };
    assert_eq!(count("select count(*) from inbox where state <> 'done'").await, 0, "events that were not handled");
    // Each event once, however often Meta repeated it.
    let mut told = HashSet::new();
    for entry in &world.told {
        let delivery = &entry.delivery;
        let list = if delivery.in_standby { "standby" } else { "messaging" };
        let fields = delivery.kind.fields(delivery.happened_ms).to_string();
        let stamp = match &delivery.kind {
            Kind::Text { .. }
            | Kind::Postback { .. }
            | Kind::Unsend { .. }
            | Kind::Edit { .. }
            | Kind::Sticker { .. } => 0,
            _ => delivery.happened_ms,
        };
        told.insert((page_id(delivery.customer), delivery.customer, list, fields, stamp));
    }
    let kept =
        count("select count(*) from inbox where kind in ('message', 'postback', 'edit', 'unsend', 'reaction', 'read', 'unknown')")
            .await;
    assert_eq!(kept, i64::try_from(told.len()).unwrap(), "each event is kept once");
    // The transcript has everything that Meta took.
    let shown = count(
        "select count(*) from outbox o where o.state = 'sent'
           and not exists (select 1 from messages m where m.conversation_id = o.conversation_id and m.outbox_id = o.id)",
    )
    .await;
    assert_eq!(shown, 0, "sent and not in the transcript");
    let open = count("select coalesce(max(n), 0) from (select count(*) as n from tickets where state = 'open' group by conversation_id) t").await;
    assert!(open <= 1, "one open ticket per conversation");
    report.tickets = count("select count(*) from tickets").await;
}

async fn withdrawn_words_are_nowhere(world: &World) {
    let tables: Vec<String> = sqlx::query_scalar(
        "select table_name::text from information_schema.tables where table_schema = 'public' and table_type = 'BASE TABLE'",
    )
    .fetch_all(&world.pool)
    .await
    .unwrap();
    let kept =
        "select (select count(*) from messages where deleted_at is not null and (text <> '' or payload is not null))
                     + (select count(*) from inbox where note = 'unsent' and (sealed is not null or payload <> '{}'))";
    let kept: i64 = sqlx::query_scalar(kept).fetch_one(&world.pool).await.unwrap();
    assert_eq!(kept, 0, "withdrawn messages that kept their (sealed) content");
    for table in tables {
        let query = format!("select count(*) from public.{table} t where to_jsonb(t)::text like '%withdrawn-m\\_sim%'");
        let count: i64 = sqlx::query_scalar(sqlx::AssertSqlSafe(query)).fetch_one(&world.pool).await.unwrap();
        assert_eq!(count, 0, "withdrawn words are still in {table}");
    }
}
