//! Tasks and conversations are good for the agent that they were made for.

use serde_json::json;

use crate::peer::{Client, Peer, message};

#[tokio::test]
async fn another_agents_task_is_not_found() {
    let peer = Peer::good().await;
    let rig = peer.gate().await;
    for client in Client::both(&rig) {
        let id = client.task().await;
        let other = client.by("other");
        let before = peer.requests().len();
        for (method, http, params) in [
            ("GetTask", format!("GET /tasks/{id}"), json!({"id": id})),
            ("CancelTask", format!("POST /tasks/{id}:cancel"), json!({"id": id})),
            ("SubscribeToTask", format!("GET /tasks/{id}:subscribe"), json!({"id": id})),
            (
                "ListTaskPushNotificationConfigs",
                format!("GET /tasks/{id}/pushNotificationConfigs"),
                json!({"taskId": id}),
            ),
            ("SendMessage", "POST /message:send".to_owned(), json!({"message": {"taskId": id, "parts": []}})),
            (
                "SendMessage",
                "POST /message:send".to_owned(),
                json!({"message": {"referenceTaskIds": [id], "parts": []}}),
            ),
            (
                "SendMessage",
                "POST /message:send".to_owned(),
                json!({"message": {"task_id": id, "parts": []}}),
            ),
        ] {
            let got = other.ask(method, &http, params).await;
            assert_eq!(other.reason(&got), "TASK_NOT_FOUND", "{method}");
        }
        let context = json!({"message": {"contextId": format!("c-{id}"), "parts": []}});
        let got = other.ask("SendMessage", "POST /message:send", context.clone()).await;
        assert_eq!(other.reason(&got), "INVALID_PARAMS", "{}", got.body);
        assert_eq!(peer.requests().len(), before, "nothing of it reached the peer");
        // Its owner goes on with both.
        assert_eq!(client.ask("SendMessage", "POST /message:send", context).await.status, 200);
        let own = json!({"messageId": "m", "taskId": id, "parts": []});
        assert_eq!(client.send(own).await.status, 200);
    }
    rig.close_and_verify().await;
}

#[tokio::test]
async fn lists_hold_the_callers_own_tasks() {
    let peer = Peer::good().await;
    let rig = peer.gate().await;
    for client in Client::both(&rig) {
        let other = client.by("other");
        let (mine, theirs) = (client.task().await, other.task().await);
        for (who, id) in [(&client, &mine), (&other, &theirs)] {
            let got = who.ask("ListTasks", "GET /tasks?pageSize=9", json!({"pageSize": 9})).await;
            let list = who.result(&got);
            let ids: Vec<&str> =
                list["tasks"].as_array().unwrap().iter().filter_map(|t| t["id"].as_str()).collect();
            assert_eq!(ids.last(), Some(&id.as_str()));
            assert_eq!(list["totalSize"], ids.len());
        }
        assert!(!client.send(message("x")).await.body.is_empty());
    }
    rig.close_and_verify().await;
}
