//! Components that no compiler would make, written byte by byte: each is refused with its reason, in bounded time and words.

use frontdesk_policy_engine::{Engine, Grants, Hook, Limits, LoadError, LoadRequest};
use serde_json::json;

use crate::support::{engine, fresh_engine, guest};

fn refused(wasm: &[u8]) -> LoadError {
    refused_by(engine(), wasm)
}

/// By an engine of its own where a test counts what is left in the pool: others load on the shared one at the same time.
fn refused_by(engine: &Engine, wasm: &[u8]) -> LoadError {
    let settings = &json!({});
    let grants = Grants { knowledge: true };
    let request = LoadRequest { hook: Hook::Classify, wasm, settings, limits: Limits::default(), grants };
    engine.load(request).expect_err("it must be refused")
}

/// Unsigned LEB128.
fn number(mut value: usize) -> Vec<u8> {
    let mut out = Vec::new();
    loop {
        let byte = (value & 0x7f) as u8;
        value >>= 7;
        if value == 0 {
            out.push(byte);
            return out;
        }
        out.push(byte | 0x80);
    }
}

fn name(text: &str) -> Vec<u8> {
    [number(text.len()), text.as_bytes().to_vec()].concat()
}

fn section(id: u8, content: &[u8]) -> Vec<u8> {
    [vec![id], number(content.len()), content.to_vec()].concat()
}

/// A section that holds a list.
fn list(id: u8, items: &[Vec<u8>]) -> Vec<u8> {
    section(id, &[number(items.len()), items.concat()].concat())
}

fn component(sections: &[Vec<u8>]) -> Vec<u8> {
    [b"\0asm\x0d\0\x01\0".to_vec(), sections.concat()].concat()
}

/// A component that imports an instance by name and does nothing.
fn importing(import: &str) -> Vec<u8> {
    let empty_instance_type = list(7, &[vec![0x42, 0x00]]);
    let import = list(10, &[[vec![0x00], name(import), vec![0x05, 0x00]].concat()]);
    component(&[empty_instance_type, import])
}

/// A component that has the functions of a classifier, with types of no contract, around a core module. The module's
/// function 0 is lifted as all three.
fn around(core_module: &[u8]) -> Vec<u8> {
    around_many(core_module, 1, "0.1.0")
}

/// The same with so many instances of the module, for a version of the contract.
fn around_many(core_module: &[u8], core_instances: usize, version: &str) -> Vec<u8> {
    let inline = |exports: &[&str]| {
        let exports: Vec<Vec<u8>> =
            exports.iter().map(|it| [vec![0x00], name(it), vec![0x01, 0x00]].concat()).collect();
        [vec![0x01], number(exports.len()), exports.concat()].concat()
    };
    let export = |interface: &str, instance: u8| {
        let interface = format!("frontdesk:policy/{interface}@{version}");
        [vec![0x00], name(&interface), vec![0x05, instance, 0x00]].concat()
    };
    component(&[
        section(1, core_module),
        // Core instances of module 0, without arguments.
        list(2, &vec![vec![0x00, 0x00, 0x00]; core_instances]),
        // Its export "f" as core function 0.
        list(6, &[[vec![0x00, 0x00, 0x01, 0x00], name("f")].concat()]),
        // Function type 0: no parameters, no result.
        list(7, &[vec![0x40, 0x00, 0x01, 0x00]]),
        // Function 0: core function 0 lifted, without options.
        list(8, &[vec![0x00, 0x00, 0x00, 0x00, 0x00]]),
        list(5, &[inline(&["describe", "configure"]), inline(&["classify"])]),
        list(11, &[export("lifecycle", 0), export("classify-hook", 1)]),
    ])
}

/// A core module with a function that returns, exported as "f", and what else is wanted.
#[derive(Default)]
struct Module {
    tables: Vec<Vec<u8>>,
    memory: Option<Vec<u8>>,
    /// A section between the memories and the exports, such as that of tags.
    other: Vec<u8>,
    /// The code of the start function.
    start: Option<Vec<u8>>,
    /// Functions that do nothing.
    idle_functions: usize,
    data: Vec<Vec<u8>>,
}

impl Module {
    fn bytes(self) -> Vec<u8> {
        let body = |code: &[u8]| [number(code.len() + 1), vec![0x00], code.to_vec()].concat();
        let mut bodies = vec![body(&[0x0b])];
        bodies.extend(self.start.as_deref().map(body));
        bodies.extend(vec![body(&[0x0b]); self.idle_functions]);
        let mut sections = vec![list(1, &[vec![0x60, 0x00, 0x00]]), list(3, &vec![vec![0x00]; bodies.len()])];
        if !self.tables.is_empty() {
            sections.push(list(4, &self.tables));
        }
        sections.extend(self.memory.map(|memory| list(5, &[memory])));
        sections.push(self.other);
        sections.push(list(7, &[[name("f"), vec![0x00, 0x00]].concat()]));
        if self.start.is_some() {
            sections.push(section(8, &[0x01]));
        }
        sections.push(list(10, &bodies));
        if !self.data.is_empty() {
            sections.push(list(11, &self.data));
        }
        [b"\0asm\x01\0\0\0".to_vec(), sections.concat()].concat()
    }
}

fn module(memory: Option<Vec<u8>>, start: Option<&[u8]>) -> Vec<u8> {
    Module { memory, start: start.map(<[u8]>::to_vec), ..Module::default() }.bytes()
}

/// Limits of a table or memory: at least so many.
fn at_least(count: usize) -> Vec<u8> {
    [vec![0x00], number(count)].concat()
}

/// A table of functions.
fn table(elements: usize) -> Vec<u8> {
    [vec![0x70], at_least(elements)].concat()
}

/// One byte of data at an address of memory 0.
fn data_at(address: usize) -> Vec<u8> {
    [vec![0x00, 0x41], signed(address), vec![0x0b, 0x01, 0x2a]].concat()
}

#[test]
fn imports_of_the_world_outside_are_refused_by_name() {
    for import in [
        "wasi:http/outgoing-handler@0.2.3",
        "wasi:sockets/tcp@0.3.0",
        "wasi:filesystem/types@0.3.0",
        "wasi:keyvalue/store@0.2.0",
        "somebody:else/api@1.0.0",
        "plain-name",
    ] {
        let error = refused(&importing(import));
        assert!(
            matches!(&error, LoadError::ImportNotAllowed { import: found } if found == import),
            "{import}: {error}"
        );
        assert!(error.to_string().contains(&format!("the component imports `{import}`")), "{error}");
    }
    for import in ["frontdesk:policy/log@0.2.0", "frontdesk:policy/types@1.0.0"] {
        let error = refused(&importing(import));
        assert!(matches!(&error, LoadError::OtherContract { import: found } if found == import), "{import}: {error}");
        assert!(error.to_string().contains("rebuild it with the contract"), "{error}");
    }
}

#[test]
fn a_reason_is_short_however_long_the_names_and_lists_are() {
    let error = refused(&importing(&format!("somebody:else/{}", "a".repeat(50_000))));
    assert!(matches!(error, LoadError::ImportNotAllowed { .. }), "{}", error.to_string().len());
    assert!(error.to_string().len() < 1_000, "{}", error.to_string().len());

    // Every type is exported under a name of its own.
    let one_type = list(7, &[vec![0x40, 0x00, 0x01, 0x00]]);
    let exports: Vec<Vec<u8>> =
        (0..50_000).map(|i| [vec![0x00], name(&format!("t{i}")), vec![0x03, 0x00, 0x00]].concat()).collect();
    let error = refused(&component(&[one_type, list(11, &exports)]));
    let text = error.to_string();
    assert!(matches!(error, LoadError::NotAPolicy { .. } | LoadError::Compile { .. }), "{}", &text[..200]);
    assert!(text.len() < 3_000, "{} bytes: {}", text.len(), &text[..200]);
}

#[test]
fn types_that_nest_too_deeply_are_refused() {
    // list<list<list<…>>>: each type is a list of the one before.
    let types: Vec<Vec<u8>> =
        (0..20_000).map(|i| if i == 0 { vec![0x70, 0x7d] } else { [vec![0x70], signed(i - 1)].concat() }).collect();
    let error = refused(&component(&[list(7, &types)]));
    assert!(matches!(error, LoadError::Compile { .. } | LoadError::NotAPolicy { .. }), "{error}");
    assert!(error.to_string().len() < 3_000, "{error}");
}

/// Signed LEB128 of a number that is not negative.
fn signed(mut value: usize) -> Vec<u8> {
    let mut out = Vec::new();
    loop {
        let byte = (value & 0x7f) as u8;
        value >>= 7;
        if value == 0 && byte & 0x40 == 0 {
            out.push(byte);
            return out;
        }
        out.push(byte | 0x80);
    }
}

#[test]
fn size_is_bounded_and_a_large_component_is_judged_like_a_small_one() {
    let with_custom_section = |bytes: usize| {
        let content = [name("padding"), vec![0; bytes]].concat();
        component(&[section(0, &content)])
    };
    let large = with_custom_section(60 << 20);
    assert!(matches!(refused(&large), LoadError::NotAPolicy { .. }));
    let mut at = with_custom_section((64 << 20) - 100);
    let room = (64 << 20) - at.len();
    at.extend(section(0, &[name("p"), vec![0; room - 4]].concat()));
    assert_eq!(at.len(), 64 << 20);
    assert!(matches!(refused(&at), LoadError::NotAPolicy { .. }));
    at.extend(section(0, &name("p")));
    let error = refused(&at);
    assert!(matches!(error, LoadError::TooLarge { .. }), "{error}");
    assert!(error.to_string().contains("at most 67108864 are accepted"), "{error}");
}

#[test]
fn a_start_function_that_never_ends_is_stopped_and_named() {
    let engine = &fresh_engine(1);
    // loop br 0 end
    let error = refused_by(engine, &around(&module(None, Some(&[0x03, 0x40, 0x0c, 0x00, 0x0b, 0x0b]))));
    let LoadError::Describe(fault) = &error else { panic!("{error}") };
    assert_eq!(fault.function, "instantiate");
    assert!(matches!(fault.kind.as_str(), "out-of-fuel" | "deadline"), "{error}");
    assert_eq!(engine.pool_use().component_instances, 0);
}

#[test]
fn a_start_function_that_fails_or_eats_memory_is_named() {
    let engine = &fresh_engine(1);
    for (code, kind) in [
        // unreachable
        (vec![0x00, 0x0b], "trap"),
        // i32.const -4; i32.load; drop
        (vec![0x41, 0x7c, 0x28, 0x02, 0x00, 0x1a, 0x0b], "trap"),
        // call 1, for ever
        (vec![0x10, 0x01, 0x0b], "trap"),
        // loop i32.const 16; memory.grow; drop; br 0 end
        (vec![0x03, 0x40, 0x41, 0x10, 0x40, 0x00, 0x1a, 0x0c, 0x00, 0x0b, 0x0b], "memory"),
    ] {
        let error = refused_by(engine, &around(&module(Some(at_least(1)), Some(&code))));
        assert_eq!(error.code(), format!("instantiate-{kind}"), "{error}");
    }
    assert_eq!(engine.pool_use().component_instances, 0);
}

/// What one component may take of the pool, at the limit and one past it. Within the limit it is refused for its types.
#[test]
fn a_component_takes_no_more_of_the_pool_than_one_may() {
    let engine = &fresh_engine(1);
    let tables = |count: usize, elements: usize| Module { tables: vec![table(elements); count], ..Module::default() };
    let memory = |pages: usize| Module { memory: Some(at_least(pages)), ..Module::default() };
    let data = |address: usize| Module {
        memory: Some(at_least(1)),
        data: [vec![data_at(0); 1_000], vec![data_at(address)]].concat(),
        ..Module::default()
    };
    let small = || module(None, None);
    for (wasm, code, says) in [
        (around_many(&small(), 40, "0.1.0"), "contract-mismatch", ""),
        (around_many(&small(), 41, "0.1.0"), "does-not-compile", "41 core module instances"),
        (around_many(&small(), 900, "0.1.0"), "does-not-compile", "900 core module instances"),
        (around(&tables(8, 1).bytes()), "contract-mismatch", ""),
        (around(&tables(9, 1).bytes()), "does-not-compile", "tables"),
        (around_many(&tables(1, 1).bytes(), 40, "0.1.0"), "contract-mismatch", ""),
        (around_many(&tables(8, 1).bytes(), 6, "0.1.0"), "does-not-compile", "48 tables"),
        (around(&tables(1, 20_000).bytes()), "contract-mismatch", ""),
        (around(&tables(1, 20_001).bytes()), "does-not-compile", "20001"),
        (around(&memory(512).bytes()), "contract-mismatch", ""),
        (around(&memory(513).bytes()), "instantiate-memory", "the limit is 33554432"),
        (around(&memory(2_049).bytes()), "does-not-compile", "memory"),
        (around_many(&memory(1).bytes(), 4, "0.1.0"), "does-not-compile", "4 Wasm linear memories"),
        (around(&data(65_535).bytes()), "contract-mismatch", ""),
        (around(&data(65_536).bytes()), "instantiate-trap", ""),
        (around(&Module { idle_functions: 10_000, ..Module::default() }.bytes()), "contract-mismatch", ""),
    ] {
        let error = refused_by(engine, &wasm);
        assert_eq!(error.code(), code, "{error}");
        assert!(error.to_string().contains(says), "{says}: {error}");
    }
    assert_eq!(engine.pool_use().component_instances, 0);
}

#[test]
fn a_component_for_another_version_of_the_contract_is_told_so() {
    let error = refused(&around_many(&module(None, None), 1, "0.2.0"));
    assert_eq!(error.code(), "other-contract", "{error}");
    assert!(error.to_string().contains("built against `frontdesk:policy/"), "{error}");
}

#[test]
fn functions_of_other_types_are_no_contract() {
    let error = refused(&around(&module(None, None)));
    assert!(matches!(error, LoadError::Contract { .. }), "{error}");
    assert!(error.to_string().starts_with("the component does not fit the contract frontdesk:policy@0.1.0"), "{error}");
}

#[test]
fn memories_of_64_bits_and_shared_ones_are_refused() {
    let error = refused(&around(&module(Some(vec![0x04, 0x01]), None)));
    assert!(matches!(error, LoadError::Compile { .. }), "{error}");
    assert!(error.to_string().contains("memory64"), "{error}");
    let error = refused(&around(&module(Some(vec![0x03, 0x01, 0x02]), None)));
    assert!(matches!(error, LoadError::Compile { .. }), "{error}");
    assert!(error.to_string().contains("threads"), "{error}");
}

#[test]
fn exceptions_are_refused() {
    let tag = list(13, &[vec![0x00, 0x00]]);
    let error = refused(&around(&Module { other: tag, ..Module::default() }.bytes()));
    assert_eq!(error.code(), "does-not-compile", "{error}");
    assert!(error.to_string().contains("exceptions"), "{error}");
}

#[test]
fn a_component_whose_bytes_are_damaged_anywhere_never_harms_the_engine() {
    let engine = &fresh_engine(1);
    let good = guest("guest-wrong-world");
    // The guest's own bytes follow from nothing random, so neither do the places.
    for round in 0..24_usize {
        let mut damaged = good.clone();
        let at = 8 + (round * 7_919_003) % (damaged.len() - 8);
        let piece = (at + 64).min(damaged.len());
        damaged[at..piece].reverse();
        if damaged == good {
            continue;
        }
        let _ = refused_by(engine, &damaged);
    }
    assert_eq!(engine.pool_use().component_instances, 0);
}
