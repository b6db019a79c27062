//! Bindings generated from the contract (`wit/policy/0.1.0`).
//!
//! The imports and the shared records are generated once, in [`host`]; the exports refer to them, so that a
//! [`Turn`](host::frontdesk::policy::types::Turn) is the same Rust type whichever hook a component serves. Nothing
//! here is written by hand; authors use the re-exports at the crate's root.
#![allow(unsafe_code, reason = "generated code lowers and lifts the canonical ABI")]
#![allow(missing_debug_implementations, reason = "generated code derives what it needs")]
#![allow(clippy::all, reason = "generated code")]
#![allow(missing_docs, reason = "generated code; the WIT files carry the documentation")]

/// Imports and shared records.
pub mod host {
    wit_bindgen::generate!({
        path: "../../wit/policy/0.1.0",
        inline: "
            package frontdesk:sdk;
            world host {
                import frontdesk:policy/types@0.1.0;
                import frontdesk:policy/log@0.1.0;
                import frontdesk:policy/knowledge@0.1.0;
            }
        ",
        world: "frontdesk:sdk/host",
        generate_all,
        generate_unused_types: true,
        additional_derives: [PartialEq],
    });
}

/// One world for each exported interface. A component of the contract's world `classifier` is `lifecycle` and
/// `classify-hook` together: the linker joins the types of all exported worlds. (One world for each of the contract's
/// would define the macro that exports `lifecycle` four times, which macros exported from one crate cannot be.)
macro_rules! export_world {
    ($(#[$doc:meta])* $module:ident, $inline:literal, $world:literal, $macro_name:literal, $path:literal) => {
        $(#[$doc])*
        pub mod $module {
            wit_bindgen::generate!({
                path: "../../wit/policy/0.1.0",
                inline: $inline,
                world: $world,
                with: { "frontdesk:policy/types@0.1.0": crate::bindings::host::frontdesk::policy::types },
                generate_unused_types: true,
                additional_derives: [PartialEq],
                pub_export_macro: true,
                export_macro_name: $macro_name,
                default_bindings_module: $path,
            });
        }
    };
}

/// What every component exports.
pub mod lifecycle {
    wit_bindgen::generate!({
        path: "../../wit/policy/0.1.0",
        inline: "package frontdesk:sdk-lifecycle; world lifecycle { export frontdesk:policy/lifecycle@0.1.0; }",
        world: "frontdesk:sdk-lifecycle/lifecycle",
        generate_all,
        additional_derives: [PartialEq],
        pub_export_macro: true,
        export_macro_name: "export_lifecycle_world",
        default_bindings_module: "frontdesk_policy_sdk::bindings::lifecycle",
    });
}
export_world!(
    /// The first hook.
    classifier,
    "package frontdesk:sdk-classifier; world classify { export frontdesk:policy/classify-hook@0.1.0; }",
    "frontdesk:sdk-classifier/classify",
    "export_classify_world",
    "frontdesk_policy_sdk::bindings::classifier"
);
export_world!(
    /// The second hook.
    tone,
    "package frontdesk:sdk-tone; world compose { export frontdesk:policy/tone-hook@0.1.0; }",
    "frontdesk:sdk-tone/compose",
    "export_compose_world",
    "frontdesk_policy_sdk::bindings::tone"
);
export_world!(
    /// The third hook.
    filter,
    "package frontdesk:sdk-filter; world apply { export frontdesk:policy/filter-hook@0.1.0; }",
    "frontdesk:sdk-filter/apply",
    "export_apply_world",
    "frontdesk_policy_sdk::bindings::filter"
);
export_world!(
    /// The fourth hook.
    escalation,
    "package frontdesk:sdk-escalation; world decide { export frontdesk:policy/escalation-hook@0.1.0; }",
    "frontdesk:sdk-escalation/decide",
    "export_decide_world",
    "frontdesk_policy_sdk::bindings::escalation"
);
