//! Stored responses: made, asked for again, and out of reach for a key without a model of their provider.

use crate::relay::gateway::{Gateway, KEY, Setup, ask, get, json, post};
use crate::sim::driver::{calmly_on_every_driver, listen};
use crate::sim::peer::{Script, serve};
use tollgate::llm::provider::ProviderKind::OpenAi;

const FEW: &str = "tg-few";

fn response(id: &str) -> String {
    json(&format!("{{\"id\":\"{id}\",\"object\":\"response\",\"status\":\"completed\"}}"))
}

/// Makes a response, and is asked for it so many times.
fn provider(id: &str, asked: usize) -> Script {
    let made = Script::new().expect("POST /v1/responses HTTP/1.1\r\n").expect_until("\r\n\r\n{");
    let made = made.expect_until("}").send(response(id));
    let path = format!("/v1/responses/{id}");
    let again = |script: Script, _| script.expect_until(&path).expect_until("\r\n\r\n").send(response(id));
    (0..asked).fold(made, again).expect_end()
}

/// A key whose models are others' got status 200 for any id.
#[test]
fn a_key_reaches_stored_responses_of_the_providers_of_its_models_and_no_others() {
    calmly_on_every_driver(async || {
        let ((one, at_one), (two, at_two)) = (listen(), listen());
        serve(one, vec![provider("resp_1", 3)]);
        serve(two, vec![provider("resp_2", 1)]);
        let setup = Setup::default().upstream("one", OpenAi, at_one).upstream("two", OpenAi, at_two);
        let setup = setup.model("only-one", &[(0, "")]).model("two", &[(1, "")]);
        let gateway = Gateway::start(&setup);
        let make = async |model: &str| {
            let made =
                ask(gateway.address, post("/v1/responses", &format!("{{\"model\":\"{model}\"}}"))).await;
            made.json()["id"].as_str().expect("an id").to_string()
        };
        let (one, two) = (make("only-one").await, make("two").await);
        assert!(one.starts_with("resp_tg") && two.starts_with("resp_tg"), "{one} {two}");
        let asked = async |method: &str, path: String, key: &str| {
            ask(gateway.address, get(method, &format!("/v1/responses/{path}")).replace(KEY, key))
                .await
                .status()
        };
        for (key, id, status) in [(KEY, &one, 200), (KEY, &two, 200), (FEW, &one, 200), (FEW, &two, 404)] {
            assert_eq!(asked("GET", id.clone(), key).await, status, "{key} {id}");
        }
        assert_eq!(asked("DELETE", two.clone(), FEW).await, 404);
        assert_eq!(asked("POST", format!("{two}/cancel"), FEW).await, 404);
        assert_eq!(asked("POST", format!("{one}/cancel"), FEW).await, 200);
        // It may ask for its model, which is not served where that response is.
        let body = format!("{{\"model\":\"only-one\",\"previous_response_id\":\"{two}\"}}");
        let continued = ask(gateway.address, post("/v1/responses", &body).replace(KEY, FEW)).await;
        assert_eq!(continued.status(), 404);
        gateway.end().await;
    });
}

#[test]
fn with_one_provider_its_models_decide_too() {
    calmly_on_every_driver(async || {
        let rows = [("m", 404), ("only-m", 200), ("*", 200)];
        for (model, status) in rows {
            let (listener, address) = listen();
            let script =
                Script::new().expect("GET /v1/responses/resp_1 HTTP/1.1\r\n").expect_until("\r\n\r\n");
            serve(
                listener,
                if status == 200 { vec![script.send(response("resp_1")).expect_end()] } else { vec![] },
            );
            let setup = Setup::default().upstream("one", OpenAi, address).model(model, &[(0, "")]);
            let gateway = Gateway::start(&setup);
            let request = get("GET", "/v1/responses/resp_1").replace(KEY, FEW);
            assert_eq!(ask(gateway.address, request).await.status(), status, "{model}");
            gateway.end().await;
        }
    });
}
