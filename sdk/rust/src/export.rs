//! From an implementation to a component: the export macros and the state behind them.
//!
//! The host calls `configure` once, takes a snapshot of the instance's memory, and starts every later call from that
//! snapshot. [`State`] is where the configured policy lives in that memory. The macros export nothing on other
//! targets, so that the same crate builds, links and is tested natively beside others.

use std::sync::OnceLock;

use crate::policy::{Policy, SettingError};
use crate::settings;

/// The configured policy of a component.
#[derive(Debug, Default)]
pub struct State<P> {
    policy: OnceLock<P>,
}

impl<P: Policy> State<P> {
    /// Nothing configured yet.
    #[must_use]
    pub const fn new() -> Self {
        Self { policy: OnceLock::new() }
    }

    /// Reads `document` (JSON), checks it against the policy's schema, and keeps the configured policy.
    ///
    /// # Errors
    /// Every mistake found. A second call is refused: a changed configuration is a new instance.
    pub fn configure(&self, document: &str) -> Result<(), Vec<SettingError>> {
        install_panic_hook();
        let settings = settings::parse::<P::Settings>(&P::describe().settings_schema, document)?;
        let policy = P::configure(settings)?;
        self.policy.set(policy).map_err(|_| {
            vec![SettingError::new("", "configure was called twice on one instance; start a fresh instance instead")]
        })
    }

    /// The configured policy.
    ///
    /// # Errors
    /// A sentence for the host when `configure` has not been called.
    pub fn get(&self) -> Result<&P, String> {
        self.policy.get().ok_or_else(|| "the hook was called before `configure`".to_owned())
    }
}

/// Sends the text of a panic to the host's log before the instance traps; without it the host would only see
/// `unreachable`.
pub fn install_panic_hook() {
    #[cfg(target_family = "wasm")]
    {
        static INSTALLED: std::sync::Once = std::sync::Once::new();
        INSTALLED.call_once(|| std::panic::set_hook(Box::new(|info| crate::log::error(&info.to_string()))));
    }
}

/// Implements `lifecycle` for a component type; used by the export macros.
#[doc(hidden)]
#[macro_export]
macro_rules! __lifecycle {
    ($policy:ty) => {
        static STATE: $crate::export::State<$policy> = $crate::export::State::new();

        struct Component;

        impl $crate::bindings::lifecycle::exports::frontdesk::policy::lifecycle::Guest for Component {
            fn describe() -> $crate::bindings::lifecycle::exports::frontdesk::policy::lifecycle::Description {
                $crate::export::install_panic_hook();
                let description = <$policy as $crate::Policy>::describe();
                $crate::bindings::lifecycle::exports::frontdesk::policy::lifecycle::Description {
                    name: description.name,
                    version: description.version,
                    summary: description.summary,
                    settings_schema: description.settings_schema,
                }
            }

            fn configure(
                settings: ::std::string::String,
            ) -> ::std::result::Result<
                (),
                ::std::vec::Vec<$crate::bindings::lifecycle::exports::frontdesk::policy::lifecycle::SettingError>,
            > {
                STATE.configure(&settings).map_err(|errors| {
                    errors
                        .into_iter()
                        .map(|error| $crate::bindings::lifecycle::exports::frontdesk::policy::lifecycle::SettingError {
                            path: error.path,
                            message: error.message,
                        })
                        .collect()
                })
            }
        }

        $crate::bindings::lifecycle::export_lifecycle_world!(Component with_types_in $crate::bindings::lifecycle);
    };
}

/// Exports a [`Classifier`](crate::Classifier) as a component of the world `classifier`.
#[macro_export]
macro_rules! export_classifier {
    ($policy:ty) => {
        #[cfg(target_family = "wasm")]
        #[allow(unsafe_code, reason = "the canonical ABI's exports are unsafe functions")]
        const _: () = {
            $crate::__lifecycle!($policy);

            impl $crate::bindings::classifier::exports::frontdesk::policy::classify_hook::Guest for Component {
                fn classify(
                    turn: $crate::types::Turn,
                ) -> ::std::result::Result<$crate::types::Classification, ::std::string::String> {
                    $crate::Classifier::classify(STATE.get()?, &turn)
                }
            }

    $crate::bindings::classifier::export_classify_world!(Component with_types_in $crate::bindings::classifier);
        };
        #[cfg(not(target_family = "wasm"))]
        const _: fn() = || {
            fn is_classifier<P: $crate::Classifier>() {}
            is_classifier::<$policy>();
        };
    };
}

/// Exports a [`Tone`](crate::Tone) as a component of the world `tone`.
#[macro_export]
macro_rules! export_tone {
    ($policy:ty) => {
        #[cfg(target_family = "wasm")]
        #[allow(unsafe_code, reason = "the canonical ABI's exports are unsafe functions")]
        const _: () = {
            $crate::__lifecycle!($policy);

            impl $crate::bindings::tone::exports::frontdesk::policy::tone_hook::Guest for Component {
                fn compose(
                    turn: $crate::types::Turn,
                    classification: $crate::types::Classification,
                    passages: ::std::vec::Vec<$crate::types::Passage>,
                ) -> ::std::result::Result<$crate::tone::Plan, ::std::string::String> {
                    $crate::Tone::compose(STATE.get()?, &turn, &classification, &passages)
                }
            }

    $crate::bindings::tone::export_compose_world!(Component with_types_in $crate::bindings::tone);
        };
        #[cfg(not(target_family = "wasm"))]
        const _: fn() = || {
            fn is_tone<P: $crate::Tone>() {}
            is_tone::<$policy>();
        };
    };
}

/// Exports a [`Filter`](crate::Filter) as a component of the world `filter`.
#[macro_export]
macro_rules! export_filter {
    ($policy:ty) => {
        #[cfg(target_family = "wasm")]
        #[allow(unsafe_code, reason = "the canonical ABI's exports are unsafe functions")]
        const _: () = {
            $crate::__lifecycle!($policy);

            impl $crate::bindings::filter::exports::frontdesk::policy::filter_hook::Guest for Component {
                fn apply(
                    turn: $crate::types::Turn,
                    draft: $crate::filter::Draft,
                    passages: ::std::vec::Vec<$crate::types::Passage>,
                ) -> ::std::result::Result<$crate::filter::Verdict, ::std::string::String> {
                    $crate::Filter::apply(STATE.get()?, &turn, &draft, &passages)
                }
            }

    $crate::bindings::filter::export_apply_world!(Component with_types_in $crate::bindings::filter);
        };
        #[cfg(not(target_family = "wasm"))]
        const _: fn() = || {
            fn is_filter<P: $crate::Filter>() {}
            is_filter::<$policy>();
        };
    };
}

/// Exports an [`Escalation`](crate::Escalation) as a component of the world `escalation`.
#[macro_export]
macro_rules! export_escalation {
    ($policy:ty) => {
        #[cfg(target_family = "wasm")]
        #[allow(unsafe_code, reason = "the canonical ABI's exports are unsafe functions")]
        const _: () = {
            $crate::__lifecycle!($policy);

            impl $crate::bindings::escalation::exports::frontdesk::policy::escalation_hook::Guest for Component {
                fn decide(
                    turn: $crate::types::Turn,
                    dossier: $crate::escalation::Dossier,
                ) -> ::std::result::Result<$crate::escalation::Verdict, ::std::string::String> {
                    $crate::Escalation::decide(STATE.get()?, &turn, &dossier)
                }
            }

    $crate::bindings::escalation::export_decide_world!(Component with_types_in $crate::bindings::escalation);
        };
        #[cfg(not(target_family = "wasm"))]
        const _: fn() = || {
            fn is_escalation<P: $crate::Escalation>() {}
            is_escalation::<$policy>();
        };
    };
}
