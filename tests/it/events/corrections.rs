//! What customers edit and withdraw, before, amid and after the answer.

use frontdesk_testkit::wire;

use super::{host_that_only_takes, let_work, text_body};
use crate::host::{ANSWER, Host, PAGE, QUESTION};
use crate::model::HeldModel;

/// What is stored of a message: whether its content still stands in the inbox, in the transcript.
async fn kept_text(host: &Host, mid: &str) -> (bool, bool) {
    sqlx::query_as(
        "select exists (select from inbox where mid = $1 and (sealed is not null or payload <> '{}')
                          and kind in ('message', 'edit')),
                exists (select from messages where mid = $1 and (text <> '' or payload is not null))",
    )
    .bind(mid)
    .fetch_one(host.pool())
    .await
    .unwrap()
}

#[tokio::test]
async fn an_edit_before_the_answer_changes_the_question() {
    let (host, works) = host_that_only_takes().await;
    // One edit follows its message, one overtakes it.
    for (psid, mid, edit_first) in [("701", "m_701", false), ("702", "m_702", true)] {
        let now_ms = wire::now_ms();
        let message = wire::from_person(PAGE, psid, now_ms - 2_000, wire::text(mid, "Is the shop open on Sundays?"));
        let edit = wire::from_person(PAGE, psid, now_ms - 1_000, wire::edit(mid, QUESTION, 1));
        let mut pieces = vec![message, edit];
        if edit_first {
            pieces.reverse();
        }
        for piece in pieces {
            assert_eq!(host.meta.post(&wire::body(PAGE, now_ms, vec![piece])).await.unwrap(), 200);
        }
    }
    let host = let_work(host, &works).await;
    for psid in ["701", "702"] {
        let got = host.got(psid);
        assert!(got.len() == 1 && got[0].contains(ANSWER), "{psid} got {got:?}");
        assert_eq!(host.turns(psid).await.len(), 1);
    }
}

#[tokio::test]
async fn edits_while_the_answer_is_drafted_repeat_the_turn() {
    // As many as Meta's client allows.
    const EDITS: usize = 5;
    let model = HeldModel::start(&format!("{ANSWER} [1]")).await;
    let settings = model.settings();
    let host = Host::start_with(move |plan| plan.settings.model = settings.clone()).await;
    host.teach_answer().await;
    let mid = host.ask("711", "Do you ship to Austria or Germany?").await;
    for edit in 1..=EDITS {
        host.until(&format!("draft {edit}"), async || model.asked() == edit).await;
        let fields = wire::edit(&mid, QUESTION, u32::try_from(edit).unwrap());
        assert_eq!(host.meta.from_person("711", fields).await.unwrap(), 200);
        model.release(1);
    }
    host.until("the last draft", async || model.asked() == EDITS + 1).await;
    assert_eq!(host.got("711"), [""; 0], "no draft for the old words is sent");
    model.release(1);
    host.drained().await;
    assert_eq!(host.got("711").len(), 1);
    let turns = host.turns("711").await;
    assert_eq!(turns.len(), 1, "{turns:?}");
    assert_eq!(host.tickets("711").await, [""; 0], "an edit is no failed attempt");
    assert_eq!(host.said("711").await, [QUESTION]);
}

#[tokio::test]
async fn an_unsend_before_the_answer_cancels_it_and_erases_the_words() {
    let (host, works) = host_that_only_takes().await;
    let text = "Do you ship to Austria? secret-word";
    for (psid, mid, unsend_first) in [("721", "m_721", false), ("722", "m_722", true)] {
        let now_ms = wire::now_ms();
        let unsend_ms = if unsend_first { now_ms - 3_000 } else { now_ms - 1_000 };
        let message = wire::from_person(PAGE, psid, now_ms - 2_000, wire::text(mid, text));
        let unsend = wire::from_person(PAGE, psid, unsend_ms, wire::unsend(mid));
        for piece in [message, unsend] {
            assert_eq!(host.meta.post(&wire::body(PAGE, now_ms, vec![piece])).await.unwrap(), 200);
        }
    }
    let host = let_work(host, &works).await;
    // A copy that Meta delivers later does not bring the words back.
    assert_eq!(host.meta.post(&text_body("721", "m_721", text)).await.unwrap(), 200);
    host.drained().await;
    for (psid, mid) in [("721", "m_721"), ("722", "m_722")] {
        assert_eq!(host.got(psid), [""; 0], "{psid}");
        assert_eq!(kept_text(&host, mid).await, (false, false), "{mid}");
        assert_eq!(host.turns(psid).await.len(), 0);
    }
}

#[tokio::test]
async fn an_unsend_while_the_answer_is_drafted_stops_it() {
    let model = HeldModel::start(&format!("{ANSWER} [1]")).await;
    let settings = model.settings();
    let host = Host::start_with(move |plan| plan.settings.model = settings.clone()).await;
    host.teach_answer().await;
    let mid = host.ask("731", "Do you ship to Austria? secret-word").await;
    host.until("the draft", async || model.asked() == 1).await;
    assert_eq!(host.meta.from_person("731", wire::unsend(&mid)).await.unwrap(), 200);
    model.release(1);
    host.drained().await;
    assert_eq!(host.got("731"), [""; 0]);
    assert_eq!(host.turns("731").await.len(), 0);
    assert_eq!(kept_text(&host, &mid).await, (false, false));
}
