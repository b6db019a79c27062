//! The simulated world: the host, its three clocks, and who did what when.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use frontdesk_server::clock::Clock;
use frontdesk_testkit::{EchoPlan, SentMessage, wire};
use serde_json::{Value, json};
use sqlx::postgres::{PgPool, PgPoolOptions};

use super::schedule::{ANSWERABLE, Act, Delivery, HOUR_MS, MINUTE_MS, Step, page_of};
use crate::host::{APP_ID, Host, OTHER_PAGE, PAGE, PATIENCE};

/// Another app that gets threads now and then.
const OTHER_APP: &str = "555000111222333";
/// After so many quiet hours the machine answers again.
pub const QUIET_HOURS: i64 = 6;
/// No doubt and no retry lasts longer than this after the last event.
const REST_MS: i64 = 72 * HOUR_MS;

/// Gives Postgres a clock that can be put ahead. The defaults of columns were bound to the built-in clock when the tables were
/// made, so they are bound again.
const SIMULATED_CLOCK: &str = "
    create schema sim;
    create table sim.clock (ahead interval not null);
    insert into sim.clock values ('0');
    create function sim.now() returns timestamptz language sql stable
      as 'select pg_catalog.now() + (select ahead from sim.clock)';
    create function sim.clock_timestamp() returns timestamptz language sql volatile
      as 'select pg_catalog.clock_timestamp() + (select ahead from sim.clock)';
    do $$ declare c record; begin
      for c in select table_name, column_name from information_schema.columns
               where table_schema = 'public' and column_default = 'now()' loop
        execute format('alter table public.%I alter column %I set default sim.now()', c.table_name, c.column_name);
      end loop;
      execute format('alter database %I set search_path = public, sim, pg_catalog', current_database());
    end $$;";

/// A customer's event as it was delivered for the first time.
#[derive(Debug, Clone)]
pub struct Told {
    pub delivery: Delivery,
    /// When it was first posted: an answer may be on its way before the post has returned.
    pub posted_ms: i64,
    pub delivered_ms: i64,
}

/// A word or act of a person that silences the machine, and until when.
#[derive(Debug, Clone)]
pub struct Silence {
    pub customer: usize,
    /// When the host had acknowledged it, and everything in flight had ended.
    pub from_ms: i64,
    pub until_ms: Option<i64>,
}

pub struct World {
    pub host: Host,
    pub pool: PgPool,
    pub told: Vec<Told>,
    pub silences: Vec<Silence>,
    /// When each send of the platform's arrived, in simulated time.
    pub acknowledged: HashSet<String>,
    clock: Clock,
    seed: u64,
    start: DateTime<Utc>,
    ahead_ms: i64,
    /// What is still to happen, in order.
    due: BTreeMap<(i64, u64), Happening>,
    numbers: u64,
    /// Sends whose echo is planned already.
    echoed: usize,
    echoes_of: HashMap<String, u64>,
    silencing: Vec<usize>,
    /// The host is to die so long after what happens now.
    killing: Option<u64>,
    pub deaths: usize,
    hour_told: i64,
    /// What happened, for whoever looks for the reason of a failure.
    diary: Vec<(i64, String)>,
}

enum Happening {
    Step(Act),
    Echo(Box<SentMessage>),
}

pub fn psid(customer: usize) -> String {
    format!("66{customer:06}")
}

pub fn page_id(customer: usize) -> &'static str {
    if page_of(customer) == 0 { PAGE } else { OTHER_PAGE }
}

impl World {
    pub async fn new(seed: u64) -> Self {
        let clock = Clock::default();
        let shared = clock.clone();
        let ground = crate::host::Ground::new().await;
        sqlx::raw_sql(SIMULATED_CLOCK).execute(&ground.db.pool).await.unwrap();
        let host = Host::start_mortal(ground, move |plan| {
            plan.clock = shared.clone();
            plan.settings.graph.timeout_ms = 400;
            plan.settings.outbox.in_doubt_after_ms = 1_000;
            plan.settings.outbox.echo_grace_ms = 10_000;
            plan.settings.outbox.retry_ms = 1_000;
            plan.settings.worker.retry_ms = 1_000;
            // What a host that died had leased is free again within real seconds.
            plan.settings.worker.lease_ms = 2_000;
            plan.settings.handover.quiet_hours = QUIET_HOURS;
        })
        .await;
        // Echoes are delivered by the schedule, late or never.
        host.graph.set_echoes(EchoPlan::OFF);
        let faq: Vec<String> = ANSWERABLE.iter().map(|(asked, told)| format!("\"{asked}\",\"{told}\"")).collect();
        let text = format!("question,answer\n{}\n", faq.join("\n"));
        let body = json!({ "title": "Questions", "text": text, "format": "csv-faq" });
        let (status, answer) = host.admin("POST", "/admin/knowledge/text", Some(body)).await;
        assert_eq!(status / 100, 2, "{answer}");
        let pool = PgPoolOptions::new().max_connections(2).connect(host.database_url()).await.unwrap();
        Self {
            host,
            pool,
            told: Vec::new(),
            silences: Vec::new(),
            acknowledged: HashSet::new(),
            clock,
            seed,
            start: Utc::now(),
            ahead_ms: 0,
            due: BTreeMap::new(),
            numbers: 0,
            echoed: 0,
            echoes_of: HashMap::new(),
            silencing: Vec::new(),
            killing: None,
            deaths: 0,
            hour_told: 0,
            diary: Vec::new(),
        }
    }

    /// Milliseconds of simulated time since the beginning.
    pub fn now_ms(&self) -> i64 {
        (self.clock.now() - self.start).num_milliseconds()
    }

    /// Meta's time of a moment of the schedule.
    pub fn stamp_ms(&self, at_ms: i64) -> i64 {
        self.start.timestamp_millis() + at_ms
    }

    fn plan(&mut self, at_ms: i64, happening: Happening) {
        self.numbers += 1;
        self.due.insert((at_ms, self.numbers), happening);
    }

    pub async fn live_through(&mut self, steps: Vec<Step>) {
        for step in steps {
            self.plan(step.at_ms, Happening::Step(step.act));
        }
        self.run(i64::MAX).await;
    }

    /// Lets everything that still waits for its time come to its end.
    pub async fn come_to_rest(&mut self) {
        for page in [PAGE, OTHER_PAGE] {
            self.mend(page).await;
        }
        self.settle().await;
        let end_ms = self.now_ms() + REST_MS;
        self.run(end_ms).await;
    }

    /// Does what is due, lets the host work, and goes on to the next thing, until nothing is left or the time is over.
    async fn run(&mut self, end_ms: i64) {
        loop {
            let next_ms = match (self.due.keys().next().map(|(at_ms, _)| *at_ms), self.next_due_ms().await) {
                (Some(planned), Some(waiting)) => planned.min(waiting),
                (Some(at_ms), None) | (None, Some(at_ms)) => at_ms,
                (None, None) => return,
            };
            if next_ms > end_ms {
                return;
            }
            self.go_to(next_ms).await;
            let hour = self.now_ms() / HOUR_MS;
            if hour > self.hour_told {
                self.hour_told = hour;
                self.tell_hour(hour);
            }
            // What happens within the same seconds happens at once.
            let until_ms = self.now_ms() + 500;
            while let Some(entry) = self.due.first_entry().filter(|entry| entry.key().0 <= until_ms) {
                let happening = entry.remove();
                self.happen(happening).await;
            }
            if let Some(after_ms) = self.killing.take() {
                tokio::time::sleep(Duration::from_millis(after_ms)).await;
                self.host.die_and_start().await;
                self.deaths += 1;
            }
            self.settle().await;
            self.plan_echoes();
            let from_ms = self.now_ms();
            for customer in std::mem::take(&mut self.silencing) {
                self.silences.push(Silence { customer, from_ms, until_ms: None });
            }
        }
    }

    #[expect(clippy::print_stdout, reason = "whoever waits for a simulated day wants to see it pass")]
    fn tell_hour(&self, hour: i64) {
        println!("hour {hour}: {} messages taken by Meta", self.host.graph.sends().len());
    }

    /// Puts all clocks ahead. Nothing is in flight.
    async fn go_to(&mut self, at_ms: i64) {
        let missing_ms = at_ms - self.now_ms();
        if missing_ms <= 0 {
            return;
        }
        self.ahead_ms += missing_ms;
        sqlx::query("update sim.clock set ahead = $1 * interval '1 millisecond'")
            .bind(self.ahead_ms)
            .execute(&self.pool)
            .await
            .unwrap();
        self.clock.set_ahead_ms(self.ahead_ms);
        self.host.graph.set_ahead_ms(self.ahead_ms);
    }

    /// When the host's next retry, look-up or pause ends.
    async fn next_due_ms(&self) -> Option<i64> {
        let at: Option<DateTime<Utc>> = sqlx::query_scalar(
            "select min(at) from (
               select not_before as at from inbox where state = 'pending'
               union all
               select greatest(o.not_before, p.paused_until) from outbox o join pages p on p.page_id = o.page_id
                 where p.state = 'active' and (o.state = 'queued'
                   and not exists (select 1 from outbox e where e.conversation_id = o.conversation_id and e.seq < o.seq
                                     and e.state in ('queued', 'sending', 'unknown')))
               union all
               select greatest(o.not_before, p.paused_until, o.claimed_at + interval '10 seconds') from outbox o
                 join pages p on p.page_id = o.page_id where p.state = 'active' and o.state = 'unknown'
               union all
               -- What cannot go out any more is settled when its window closes.
               select c.window_closes_at from outbox o join conversations c on c.id = o.conversation_id
                 where o.state = 'queued' and o.author = 'bot'
             ) waiting where at > now()",
        )
        .fetch_one(&self.pool)
        .await
        .unwrap();
        // A little later, so that it is surely due.
        at.map(|at| (at - self.start).num_milliseconds() + 20)
    }

    /// Waits until nothing is in flight: all that is left waits for its time.
    async fn settle(&self) {
        let begin = Instant::now();
        loop {
            let busy: i64 = sqlx::query_scalar(
                "select (select count(*) from inbox where state = 'pending' and (not_before is null or not_before <= now()))
                      + (select count(*) from conversations where lease_until > now())
                      + (select count(*) from outbox where state = 'sending')
                      + (select count(*) from outbox o join pages p on p.page_id = o.page_id
                           where o.state = 'queued' and o.not_before <= now() and p.state = 'active'
                             and (p.paused_until is null or p.paused_until <= now())
                             and not exists (select 1 from outbox e where e.conversation_id = o.conversation_id
                                               and e.seq < o.seq and e.state in ('queued', 'sending', 'unknown')))
                      + (select count(*) from outbox o join conversations c on c.id = o.conversation_id
                           where o.state = 'queued' and o.author = 'bot'
                             and (c.epoch <> o.epoch or c.state = 'not_ours' or c.window_closes_at <= now()))
                      + (select count(*) from outbox o join pages p on p.page_id = o.page_id
                           where o.state = 'unknown' and o.not_before <= now() and p.state = 'active'
                             and o.claimed_at < now() - interval '10 seconds'
                             and (p.paused_until is null or p.paused_until <= now()))",
            )
            .fetch_one(&self.pool)
            .await
            .unwrap();
            if busy == 0 {
                return;
            }
            assert!(begin.elapsed() < PATIENCE, "the host does not finish; {}", self.leftovers().await);
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    pub async fn leftovers(&self) -> String {
        let rows: Vec<Value> = sqlx::query_scalar(
            "select to_jsonb(o) from outbox o where state in ('queued', 'sending', 'unknown')
             union all select jsonb_build_object('inbox', id, 'kind', kind, 'psid', psid, 'attempts', attempts, 'not_before',
                                                 not_before, 'note', note) from inbox where state = 'pending'
             union all select to_jsonb(p) from pages p",
        )
        .fetch_all(&self.pool)
        .await
        .unwrap();
        format!("left: {rows:#?}")
    }

    /// Each new send gets its echo: soon, late, twice, or never. The seed and the how-manieth of the person decide.
    fn plan_echoes(&mut self) {
        for sent in self.host.graph.sends().split_off(self.echoed) {
            self.echoed += 1;
            let count = self.echoes_of.entry(sent.psid.clone()).or_default();
            *count += 1;
            let mut hasher = DefaultHasher::new();
            (self.seed, &sent.psid, *count).hash(&mut hasher);
            let fate = hasher.finish();
            let now_ms = self.now_ms();
            let late_ms = match fate % 10 {
                0 => continue,
                1 => 5 * MINUTE_MS,
                2 => 15_000,
                _ => 200,
            };
            let copies = if (fate / 10).is_multiple_of(8) { 2 } else { 1 };
            for copy in 0..copies {
                self.plan(now_ms + late_ms + copy * MINUTE_MS, Happening::Echo(Box::new(sent.clone())));
            }
        }
    }

    /// Posts as Meta does: until it is acknowledged.
    async fn post(&mut self, page_id: &str, body: &Value) {
        let meta = self.host.meta_of(page_id);
        let status = meta.deliver(body, 20).await;
        assert_eq!(status, Some(200), "a delivery was not acknowledged");
    }

    async fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::Echo(sent) => {
                let app_id = APP_ID.parse().unwrap();
                let echo = wire::echo(&sent.message_id, &sent.text, app_id, sent.metadata.as_deref());
                let piece = wire::from_page(&sent.page_id, &sent.psid, sent.at_ms, echo);
                self.post(&sent.page_id, &wire::body(&sent.page_id, sent.at_ms, vec![piece])).await;
            }
            Happening::Step(act) => self.act(act).await,
        }
    }

    /// What happened to a customer, with everything that happened around it, in simulated milliseconds.
    pub async fn story(&self, customer: usize) -> String {
        let needles = [format!("customer: {customer} "), format!("customer: {customer},"), psid(customer)];
        let mut lines: Vec<(i64, String)> =
            self.diary.iter().filter(|(_, text)| needles.iter().any(|needle| text.contains(needle))).cloned().collect();
        let sends = self.host.graph.sends_to(&psid(customer)).into_iter();
        lines.extend(sends.map(|sent| (sent.at_ms - self.start.timestamp_millis(), format!("sent {:?}", sent.text))));
        lines.sort();
        let rows: Vec<Value> = sqlx::query_scalar(
            "select to_jsonb(c) - 'id' from conversations c where psid = $1
             union all select jsonb_build_object('turn', d.turn_id, 'at', d.created_at, 'outcome', d.outcome, 'mids', d.mids)
               from decisions d join conversations c on c.id = d.conversation_id where c.psid = $1
             union all select jsonb_build_object('row', seq, 'author', author, 'epoch', epoch, 'state', state, 'error', error,
                 'created_at', created_at, 'settled_at', settled_at) from outbox where psid = $1
             union all select jsonb_build_object('event', kind, 'at', event_at, 'received', received_at, 'done', done_at,
                 'note', note) from inbox where psid = $1",
        )
        .bind(psid(customer))
        .fetch_all(&self.pool)
        .await
        .unwrap();
        let lines: Vec<String> = lines.into_iter().map(|(at_ms, text)| format!("{at_ms:>9} {text}")).collect();
        let rows: Vec<String> = rows.into_iter().map(|row| row.to_string()).collect();
        format!("began {}\n{}\n{}", self.start, lines.join("\n"), rows.join("\n"))
    }

    async fn act(&mut self, act: Act) {
        self.diary.push((self.now_ms(), format!("{act:?}")));
        match act {
            Act::Event(delivery) => self.deliver(delivery).await,
            Act::InboxWord { customer } => {
                let (page, psid, now_ms) = (page_id(customer), psid(customer), self.stamp_ms(self.now_ms()));
                let mid = format!("m_inbox_{customer}_{now_ms}");
                let text = "Hello, this is Ada from the shop.";
                self.host.graph.record_inbox(page, &psid, &mid, text);
                let piece = wire::from_page(page, &psid, now_ms, wire::inbox_echo(&mid, text));
                self.post(page, &wire::body(page, now_ms, vec![piece])).await;
                self.acknowledged.insert(mid);
                self.silencing.push(customer);
            }
            Act::TakeOver { customer } => {
                if self.call(customer, "takeover", json!({})).await {
                    self.silencing.push(customer);
                }
            }
            Act::Reply { customer } => {
                let words = format!("Ada here, number {}.", self.numbers);
                self.numbers += 1;
                if self.call(customer, "reply", json!({ "text": words })).await {
                    self.silencing.push(customer);
                }
            }
            Act::HandBack { customer } => {
                if self.call(customer, "handback", json!({})).await {
                    let now_ms = self.now_ms();
                    self.silencing.retain(|silent| *silent != customer);
                    self.end_silence(customer, now_ms);
                }
            }
            Act::Resolve { customer } => {
                let id: Option<uuid::Uuid> = sqlx::query_scalar(
                    "select t.id from tickets t join conversations c on c.id = t.conversation_id
                     where t.state = 'open' and c.page_id = $1 and c.psid = $2",
                )
                .bind(page_id(customer))
                .bind(psid(customer))
                .fetch_optional(&self.pool)
                .await
                .unwrap();
                if let Some(id) = id {
                    let (status, answer) = self.host.admin("POST", &format!("/admin/tickets/{id}/resolve"), None).await;
                    assert_eq!(status, 200, "{answer}");
                    if answer["handed_back"] == true {
                        let now_ms = self.now_ms();
                        self.silencing.retain(|silent| *silent != customer);
                        self.end_silence(customer, now_ms);
                    }
                }
            }
            Act::Kill { after_ms } => self.killing = Some(after_ms),
            Act::GiveAway { customer } => self.control(customer, OTHER_APP, "standby").await,
            Act::GiveBack { customer } => {
                self.control(customer, APP_ID, "messaging").await;
                // Meta says who owns the thread: whoever was silent before may speak.
                let now_ms = self.now_ms();
                self.end_silence(customer, now_ms);
            }
            Act::SendFate(outcome) => self.host.graph.script(outcome),
            Act::KillToken { page } => self.host.graph.kill_token(page_id(page), 460),
            Act::MendToken { page } => self.mend(page_id(page)).await,
            Act::LoseWakeUps => self.lose_wake_ups().await,
        }
    }

    fn end_silence(&mut self, customer: usize, at_ms: i64) {
        for silence in self.silences.iter_mut().filter(|silence| silence.customer == customer) {
            silence.until_ms.get_or_insert(at_ms);
        }
    }

    async fn deliver(&mut self, delivery: Delivery) {
        let (page, psid) = (page_id(delivery.customer), psid(delivery.customer));
        let stamp_ms = self.stamp_ms(delivery.happened_ms);
        if let Some((mid, text)) = delivery.kind.inquiry()
            && !self.told.iter().any(|told| told.delivery.kind.inquiry().is_some_and(|(known, _)| known == mid))
        {
            self.host.graph.record_inbound(page, &psid, mid, text);
        }
        let piece = wire::from_person(page, &psid, stamp_ms, delivery.kind.fields(stamp_ms));
        let list = if delivery.in_standby { "standby" } else { "messaging" };
        let body = wire::batch(vec![wire::entry(page, stamp_ms, list, vec![piece])]);
        let posted_ms = self.now_ms();
        self.post(page, &body).await;
        let delivered_ms = self.now_ms();
        self.told.push(Told { delivery, posted_ms, delivered_ms });
    }

    /// Tells that a thread has a new owner. The platform refuses our sends meanwhile.
    async fn control(&mut self, customer: usize, owner: &str, list: &str) {
        let (page, psid, stamp_ms) = (page_id(customer), psid(customer), self.stamp_ms(self.now_ms()));
        self.host.graph.set_thread_owner(&psid, Some(owner));
        let fields = wire::pass_thread_control(None, Some(owner));
        let piece = wire::from_person(page, &psid, stamp_ms, fields);
        let body = wire::batch(vec![wire::entry(page, stamp_ms, list, vec![piece])]);
        self.post(page, &body).await;
    }

    /// A call of the admin API by Ada. False: there was nothing to do it with, or it may not be done now.
    async fn call(&self, customer: usize, action: &str, body: Value) -> bool {
        let id: Option<uuid::Uuid> =
            sqlx::query_scalar("select id from conversations where page_id = $1 and psid = $2")
                .bind(page_id(customer))
                .bind(psid(customer))
                .fetch_optional(&self.pool)
                .await
                .unwrap();
        let Some(id) = id else { return false };
        let (status, answer) =
            self.host.admin("POST", &format!("/admin/conversations/{id}/{action}"), Some(body)).await;
        assert!(status < 500, "{action}: {status} {answer}");
        status < 300
    }

    async fn mend(&self, page_id: &str) {
        self.host.graph.revive_token(page_id);
        let (status, answer) =
            self.host.admin("POST", &format!("/admin/pages/{page_id}/resume"), Some(json!({}))).await;
        assert!(status < 500, "{status} {answer}");
    }

    async fn lose_wake_ups(&self) {
        let url = std::env::var("REDIS_URL").unwrap();
        let mut connection = redis::Client::open(url).unwrap().get_multiplexed_async_connection().await.unwrap();
        let stream = format!("{}:wakeups", self.host.app.settings.queue.namespace);
        redis::cmd("DEL").arg(stream).query_async::<i64>(&mut connection).await.unwrap();
    }
}
