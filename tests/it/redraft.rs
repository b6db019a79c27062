//! A recorded turn, drafted again for another prompt.

use serde_json::json;

use crate::host::{ANSWER, Host, QUESTION};
use crate::model::HeldModel;

const MANNER: &str = "Answer as a pirate would.";

#[tokio::test]
async fn a_turn_is_drafted_again_for_another_prompt_and_nothing_changes() {
    let model = HeldModel::start(&format!("{ANSWER} [1]")).await;
    model.release(2);
    let settings = model.settings();
    let host = Host::start_with(move |plan| plan.settings.model = settings.clone()).await;
    host.teach_answer().await;
    host.ask("6001", QUESTION).await;
    host.drained().await;
    let turns = host.turns("6001").await;
    let place = format!("/admin/turns/{}", turns[0]["turn_id"].as_str().unwrap());
    let (_, before) = host.admin("GET", &place, None).await;
    let sent = host.got("6001");

    let mut plan = before["record"]["plan"].clone();
    plan["instructions"][0]["text"] = json!(MANNER);
    let body = json!({ "plan": plan });
    let (status, again) = host.admin("POST", &format!("{place}/redraft"), Some(body.clone())).await;
    assert_eq!(status, 200, "{again}");
    // The model said the same.
    for place in ["/answer", "/no_draft_reason", "/citations/0/passages", "/evidence/sentences", "/evidence/supported"]
    {
        assert_eq!(again.pointer(place), before["record"].pointer(place), "{place}");
    }
    assert!(again["answer"].as_str().unwrap().contains(ANSWER), "{again}");
    assert_eq!(again["model"], "held");
    let prompts = model.prompts();
    assert_eq!(prompts.len(), 2);
    assert!(!prompts[0].contains(MANNER) && prompts[1].contains(MANNER), "{prompts:?}");
    assert!(prompts[1].contains(QUESTION), "{prompts:?}");

    let (_, after) = host.admin("GET", &place, None).await;
    assert_eq!(after["record"], before["record"]);
    assert_eq!(host.got("6001"), sent);
    assert_eq!(host.turns("6001").await.len(), 1);
    let (_, audit) = host.admin("GET", "/admin/audit?limit=200", None).await;
    let entry = audit["entries"].as_array().unwrap().iter().find(|it| it["action"] == "turn.redraft").unwrap();
    assert_eq!(entry["actor"], "ada");
    let spent: i64 = host.count("select coalesce(sum(prompt_tokens), 0)::bigint from model_usage").await;
    assert_eq!(spent, 20, "both drafts count for the budget");

    let (status, _) = host.admin("POST", &format!("{place}/redraft"), Some(json!({ "plan": { "x": 1 } }))).await;
    assert_eq!(status, 400);
    let unknown = format!("/admin/turns/{}/redraft", uuid::Uuid::nil());
    assert_eq!(host.admin("POST", &unknown, Some(body)).await.0, 404);
    assert_eq!(model.asked(), 2, "what is refused asks no model");
}
