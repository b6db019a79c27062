//! A tone policy, for tests that give it to another hook. In its own place it is no good either: it loops while it
//! describes itself, which no setting could prevent.

use std::hint::black_box;

#[expect(unsafe_code, reason = "the generated bindings pass pointers to the host")]
mod bindings {
    wit_bindgen::generate!({ path: "../../../wit/policy/0.1.0", world: "tone" });
    export!(WrongWorld);
    use super::WrongWorld;
}

use bindings::exports::frontdesk::policy::{lifecycle, tone_hook};
use bindings::frontdesk::policy::types::{Classification, Passage, Turn};

struct WrongWorld;

impl lifecycle::Guest for WrongWorld {
    fn describe() -> lifecycle::Description {
        spin()
    }

    fn configure(_settings: String) -> Result<(), Vec<lifecycle::SettingError>> {
        Ok(())
    }
}

impl tone_hook::Guest for WrongWorld {
    fn compose(_: Turn, _: Classification, _: Vec<Passage>) -> Result<tone_hook::Plan, String> {
        Err("never reached".to_owned())
    }
}

#[inline(never)]
fn spin() -> ! {
    loop {
        black_box(0);
    }
}
