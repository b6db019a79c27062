//! `kill -9` at any moment: what was acknowledged is answered, and once.
//!
//! `FRONTDESK_CRASH_ROUNDS` sets how often the process dies, `FRONTDESK_CRASH_SEED` repeats a run's chances.

use std::time::Duration;

use frontdesk_testkit::{Outcome, WebhookSender, wire};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::host::{ANSWER, PAGE, QUESTION};
use crate::process::Installation;

/// Customers who write in one round.
const CUSTOMERS: usize = 3;

/// A customer's only message.
#[derive(Clone)]
struct Inquiry {
    psid: String,
    mid: String,
    stamp_ms: i64,
}

/// Posts as Meta does; gives whether it was acknowledged.
async fn deliver(meta: WebhookSender, inquiry: Inquiry) -> Option<Inquiry> {
    let piece = wire::from_person(PAGE, &inquiry.psid, inquiry.stamp_ms, wire::text(&inquiry.mid, QUESTION));
    let status = meta.post(&wire::body(PAGE, inquiry.stamp_ms, vec![piece])).await;
    (!matches!(status, Ok(200))).then_some(inquiry)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_acknowledged_inquiry_survives_kill_9_and_is_answered_once() {
    let rounds: usize =
        std::env::var("FRONTDESK_CRASH_ROUNDS").map_or(20, |rounds| rounds.parse().expect("a number of rounds"));
    let seed: u64 = std::env::var("FRONTDESK_CRASH_SEED")
        .map_or_else(|_| rand::rng().random(), |seed| seed.parse().expect("a number as seed"));
    println!("FRONTDESK_CRASH_SEED={seed} repeats this run");
    let mut chance = StdRng::seed_from_u64(seed);
    let installation = Installation::new().await;
    let first = installation.start().await;
    first.teach_answer().await;
    first.kill_9().await;

    let mut all: Vec<Inquiry> = Vec::new();
    let mut unacknowledged: Vec<Inquiry> = Vec::new();
    let mut crashes_amid_work = 0;
    for round in 0..rounds {
        let process = installation.start().await;
        for _ in 0..CUSTOMERS {
            match chance.random_range(0..10) {
                0..=4 => installation.graph.script(Outcome::Delay(Duration::from_millis(chance.random_range(10..150)))),
                5 => installation.graph.script(Outcome::LostResponse),
                6 => installation.graph.script(Outcome::Hang { is_taken: chance.random() }),
                _ => {}
            }
        }
        for customer in 0..CUSTOMERS {
            let inquiry =
                Inquiry { psid: format!("9{round:03}{customer}"), mid: wire::new_mid(), stamp_ms: wire::now_ms() };
            installation.graph.record_inbound(PAGE, &inquiry.psid, &inquiry.mid, QUESTION);
            all.push(inquiry.clone());
            unacknowledged.push(inquiry);
        }
        // Meta repeats what was not acknowledged.
        let deliveries: Vec<_> =
            unacknowledged.drain(..).map(|inquiry| tokio::spawn(deliver(process.meta.clone(), inquiry))).collect();
        tokio::time::sleep(Duration::from_millis(chance.random_range(0..400))).await;
        process.kill_9().await;
        for delivery in deliveries {
            unacknowledged.extend(delivery.await.unwrap());
        }
        let amid = "select (select count(*) from inbox where state = 'pending' and kind = 'message')
                         + (select count(*) from outbox where state in ('queued', 'sending'))";
        crashes_amid_work += i64::from(installation.count(amid).await > 0);
    }

    let last = installation.start().await;
    for inquiry in unacknowledged {
        assert!(deliver(last.meta.clone(), inquiry).await.is_none());
    }
    installation.drained().await;
    println!("{} inquiries, {rounds} crashes, {crashes_amid_work} of them amid work", all.len());
    assert!(crashes_amid_work > 0, "no crash met any work: the test shows nothing");
    for inquiry in &all {
        let got = installation.graph.sends_to(&inquiry.psid);
        assert_eq!(got.len(), 1, "{} got {:?}", inquiry.psid, got.iter().map(|sent| &sent.text).collect::<Vec<_>>());
        assert!(got[0].text.contains(ANSWER), "{}", got[0].text);
        let decided: i64 = sqlx::query_scalar("select count(*) from decisions where mids = array[$1]")
            .bind(&inquiry.mid)
            .fetch_one(&installation.ground.db.pool)
            .await
            .unwrap();
        assert_eq!(decided, 1, "{}", inquiry.psid);
    }
    assert_eq!(installation.count("select count(*) from tickets").await, 0);
    assert_eq!(installation.count("select count(*) from outbox where state <> 'sent'").await, 0);
    assert_eq!(
        installation.count("select count(*) from inbox where kind = 'message'").await,
        i64::try_from(all.len()).unwrap()
    );
    last.kill_9().await;
}
