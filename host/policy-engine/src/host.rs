//! The functions a component may import, and the list of what it may import at all.

use std::time::Duration;

use wasmtime::component::{HasSelf, Linker};
use wasmtime::{AsContextMut, StoreContextMut, Trap};

use crate::fault::{HostAnswer, LogLine, SearchAnswer};
use crate::limits::Limits;
use crate::state::CallState;
use crate::types::{LogLevel, LookupError, Passage};

/// Name of the contract's package.
pub(crate) const PACKAGE: &str = "frontdesk:policy";
/// Version that this engine serves; components built against another `0.1.x` fit too.
pub(crate) const VERSION: &str = "0.1.0";

/// `frontdesk:policy/<interface>@0.1.0`.
pub(crate) fn interface_name(interface: &str) -> String {
    format!("{PACKAGE}/{interface}@{VERSION}")
}

/// What an import is to the engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Import {
    /// Linked for everybody.
    Allowed,
    /// Linked for those to whom the chain grants it.
    Knowledge,
    /// Of this contract, but of another version.
    OtherVersion,
    /// Not linked at all.
    Unknown,
}

/// The WASI 0.2 interfaces that are linked, locked down. `wasi:http` and everything of WASI 0.3 is not.
const WASI_INTERFACES: &[&str] = &[
    "wasi:cli/environment",
    "wasi:cli/exit",
    "wasi:cli/stderr",
    "wasi:cli/stdin",
    "wasi:cli/stdout",
    "wasi:cli/terminal-input",
    "wasi:cli/terminal-output",
    "wasi:cli/terminal-stderr",
    "wasi:cli/terminal-stdin",
    "wasi:cli/terminal-stdout",
    "wasi:clocks/monotonic-clock",
    "wasi:clocks/wall-clock",
    "wasi:filesystem/preopens",
    "wasi:filesystem/types",
    "wasi:io/error",
    "wasi:io/poll",
    "wasi:io/streams",
    "wasi:random/insecure",
    "wasi:random/insecure-seed",
    "wasi:random/random",
    "wasi:sockets/instance-network",
    "wasi:sockets/ip-name-lookup",
    "wasi:sockets/network",
    "wasi:sockets/tcp",
    "wasi:sockets/tcp-create-socket",
    "wasi:sockets/udp",
    "wasi:sockets/udp-create-socket",
];

/// Judges an import by its name, such as `wasi:io/poll@0.2.6`.
pub(crate) fn judge_import(name: &str) -> Import {
    let (path, version) = name.split_once('@').unwrap_or((name, ""));
    if let Some(interface) = path.strip_prefix(PACKAGE).and_then(|rest| rest.strip_prefix('/')) {
        if !version.starts_with("0.1.") {
            return Import::OtherVersion;
        }
        return match interface {
            "log" | "types" => Import::Allowed,
            "knowledge" => Import::Knowledge,
            _ => Import::Unknown,
        };
    }
    if WASI_INTERFACES.contains(&path) && version.starts_with("0.2.") { Import::Allowed } else { Import::Unknown }
}

/// Links everything that is allowed. The import list is checked before: a component without the grant never gets to
/// the point where `knowledge` would resolve.
pub(crate) fn link(linker: &mut Linker<CallState>) -> wasmtime::Result<()> {
    wasmtime_wasi::p2::add_to_linker_async(linker)?;
    linker.allow_shadowing(true);
    {
        use wasmtime_wasi::p2::bindings::clocks::{monotonic_clock, wall_clock};
        use wasmtime_wasi::p2::bindings::random::{insecure, insecure_seed, random};
        type Own = HasSelf<CallState>;
        monotonic_clock::add_to_linker::<CallState, Own>(linker, |state| state)?;
        wall_clock::add_to_linker::<CallState, Own>(linker, |state| state)?;
        random::add_to_linker::<CallState, Own>(linker, |state| state)?;
        insecure::add_to_linker::<CallState, Own>(linker, |state| state)?;
        insecure_seed::add_to_linker::<CallState, Own>(linker, |state| state)?;
    }
    linker.allow_shadowing(false);
    linker.instance(&interface_name("log"))?.func_wrap(
        "write",
        |mut store: StoreContextMut<'_, CallState>, (level, message): (LogLevel, String)| {
            charge(&mut store, message.len())?;
            write_log(store.data_mut(), level, &message);
            Ok(())
        },
    )?;
    linker.instance(&interface_name("knowledge"))?.func_wrap_async(
        "search",
        |mut store: StoreContextMut<'_, CallState>, (query, limit): (String, u32)| {
            Box::new(async move {
                charge(&mut store, query.len())?;
                Ok((search(store, query, limit).await,))
            })
        },
    )
}

/// Takes fuel for a call of the host: [`Limits::HOST_CALL_FUEL`] and one for each byte that was handed over.
fn charge(store: &mut StoreContextMut<'_, CallState>, bytes: usize) -> wasmtime::Result<()> {
    let price = Limits::HOST_CALL_FUEL.saturating_add(bytes as u64);
    let left = store.get_fuel()?;
    if left <= price {
        store.set_fuel(0)?;
        return Err(Trap::OutOfFuel.into());
    }
    store.set_fuel(left - price)
}

fn write_log(state: &mut CallState, level: LogLevel, message: &str) {
    if state.logs.len() >= state.log_lines_max {
        state.logs_dropped = state.logs_dropped.saturating_add(1);
        return;
    }
    let escaped = message.replace('\r', "\\r").replace('\n', "\\n");
    let end = escaped.floor_char_boundary(Limits::LOG_LINE_BYTES_MAX);
    state.logs.push(LogLine { level, message: escaped[..end].to_owned() });
}

async fn search(
    mut store: StoreContextMut<'_, CallState>,
    query: String,
    limit: u32,
) -> Result<Vec<Passage>, LookupError> {
    let state = store.as_context_mut();
    let state = state.data();
    if state.lookups_left == 0 {
        return Err(LookupError::LimitReached);
    }
    if query.len() > Limits::LOOKUP_QUERY_BYTES_MAX {
        return Err(LookupError::Unavailable(format!(
            "the query has {} bytes; at most {} are taken",
            query.len(),
            Limits::LOOKUP_QUERY_BYTES_MAX
        )));
    }
    let lookup = state.lookup.clone();
    let timeout_ms = state.lookup_timeout_ms;
    let limit = limit.clamp(1, Limits::LOOKUP_PASSAGES_MAX);
    let result = match lookup {
        None => Err(LookupError::Unavailable("no knowledge is attached to this call".to_owned())),
        Some(lookup) => {
            let answer = lookup.search(&query, limit);
            tokio::time::timeout(Duration::from_millis(timeout_ms.into()), answer)
                .await
                .unwrap_or(Err(LookupError::LimitReached))
        }
    };
    let result = result.map(|mut passages| {
        passages.truncate(limit as usize);
        passages
    });
    let answer = match &result {
        Ok(passages) => SearchAnswer::Passages(passages.clone()),
        Err(error) => SearchAnswer::Failed(error.clone()),
    };
    let state = store.data_mut();
    state.lookups_left -= 1;
    state.host_answers.push(HostAnswer::Search { query, limit, answer });
    result
}
