//! Tests the pickle machine on hand-written programs.

use super::super::objects::{Bytes, Global};
use super::*;

fn run(pickle: &[u8]) -> Objects<'_> {
    let (objects, length) = Machine::run(pickle).unwrap();
    assert_eq!(length, pickle.len());
    objects
}

fn error_of(pickle: &[u8]) -> String {
    Machine::run(pickle).map(|_| ()).unwrap_err()
}

/// The entries of the resulting dictionary, with their names.
fn entries<'o, 'a>(objects: &'o Objects<'a>) -> Vec<(&'a str, &'o Node<'a>)> {
    let Node::Dict(entries) = objects.node(objects.root) else { panic!() };
    let entry = |(key, value): &(NodeId, NodeId)| match objects.node(*key) {
        Node::Text(key) => (*key, objects.node(*value)),
        other => panic!("{other:?}"),
    };
    entries.iter().map(entry).collect()
}

#[test]
fn dictionaries_filled_after_they_were_memoised_are_one_object() {
    // {"a": d, "b": d} with d = {"c": 1}
    let objects =
        run(b"\x80\x02}q\x00(X\x01\x00\x00\x00a}q\x01X\x01\x00\x00\x00cK\x01sX\x01\x00\x00\x00bh\x01u.");
    let Node::Dict(entries) = objects.node(objects.root) else { panic!() };
    let [(_, first), (_, second)] = entries[..] else { panic!("{entries:?}") };
    assert_eq!(first, second);
    let Node::Dict(inner) = objects.node(first) else { panic!() };
    assert!(matches!(objects.node(inner[0].1), Node::Int(1)));
}

#[test]
fn the_same_dictionary_is_read_in_every_protocol() {
    // pickle.dumps({"a": (1, -2, 70000), "b": [True, None], "c": "x"}, protocol)
    for pickle in [
        &b"(dp0\nVa\np1\n(I1\nI-2\nI70000\ntp2\nsVb\np3\n(lp4\nI01\naNasVc\np5\nVx\np6\ns."[..],
        b"}q\0(X\x01\0\0\0aq\x01(K\x01J\xfe\xff\xff\xffJp\x11\x01\0tq\x02X\x01\0\0\0bq\x03]q\x04(I01\nNeX\x01\0\0\0cq\x05X\x01\0\0\0xq\x06u.",
        b"\x80\x02}q\0(X\x01\0\0\0aq\x01K\x01J\xfe\xff\xff\xffJp\x11\x01\0\x87q\x02X\x01\0\0\0bq\x03]q\x04(\x88NeX\x01\0\0\0cq\x05X\x01\0\0\0xq\x06u.",
        b"\x80\x04\x95,\0\0\0\0\0\0\0}\x94(\x8c\x01a\x94K\x01J\xfe\xff\xff\xffJp\x11\x01\0\x87\x94\x8c\x01b\x94]\x94(\x88Ne\x8c\x01c\x94\x8c\x01x\x94u.",
    ] {
        let objects = run(pickle);
        let [("a", Node::Tuple(numbers)), ("b", Node::List(flags)), ("c", Node::Text("x"))] =
            entries(&objects)[..]
        else {
            panic!("{:?}", entries(&objects))
        };
        let numbers: Vec<_> = numbers.iter().map(|id| objects.node(*id)).collect();
        assert!(matches!(numbers[..], [Node::Int(1), Node::Int(-2), Node::Int(70_000)]), "{numbers:?}");
        let flags: Vec<_> = flags.iter().map(|id| objects.node(*id)).collect();
        assert!(matches!(flags[..], [Node::Bool(true), Node::None]), "{flags:?}");
    }
}

#[test]
fn operations_of_newer_protocols_are_known() {
    let long_text = b"\x80\x04\x8d\x02\0\0\0\0\0\0\0ab.";
    assert!(matches!(entries_or_root(long_text), Root::Text));
    for bytes in [
        &b"\x80\x03C\x02ab."[..],
        b"\x80\x03B\x02\0\0\0ab.",
        b"\x80\x04\x8e\x02\0\0\0\0\0\0\0ab.",
        b"\x80\x05\x96\x02\0\0\0\0\0\0\0ab.",
        b"\x80\x05\x96\x02\0\0\0\0\0\0\0ab\x98.",
    ] {
        assert!(matches!(entries_or_root(bytes), Root::Bytes), "{bytes:?}");
    }
    // {1}, frozenset({1}), a duplicated value, and one that was popped.
    for other in
        [&b"\x80\x04\x8f\x94(K\x01\x90."[..], b"\x80\x04(K\x01\x91.", b"(G\0\0\0\0\0\0\0\x002)1)0F1.5\n."]
    {
        assert!(matches!(entries_or_root(other), Root::Other), "{other:?}");
    }
}

#[derive(Debug)]
enum Root {
    Text,
    Bytes,
    Other,
}

fn entries_or_root(pickle: &[u8]) -> Root {
    let objects = run(pickle);
    match objects.node(objects.root) {
        Node::Text("ab") => Root::Text,
        Node::Bytes(Bytes { bytes: b"ab", as_text: false }) => Root::Bytes,
        Node::Other => Root::Other,
        other => panic!("{other:?}"),
    }
}

#[test]
fn unknown_functions_make_opaque_objects() {
    for pickle in [
        // GLOBAL and REDUCE, STACK_GLOBAL and NEWOBJ, NEWOBJ_EX, INST, OBJ, each with attributes.
        &b"\x80\x02cpathlib\nPath\nX\x01\0\0\0a\x85R}b."[..],
        b"\x80\x04\x8c\x07pathlib\x8c\x04Path\x93)\x81}b.",
        b"\x80\x04\x8c\x07pathlib\x8c\x04Path\x93)}\x92}b.",
        b"(ipathlib\nPath\n}b.",
        b"(cpathlib\nPath\nNo}b.",
    ] {
        let objects = run(pickle);
        let Node::Object(object) = objects.node(objects.root) else { panic!("{pickle:?}") };
        assert_eq!(object.made_by, Some(Global { module: "pathlib", name: "Path" }));
        assert!(object.state.is_some());
    }
    // Calling such an object.
    let objects = run(b"\x80\x02ca\nb\n)R)R.");
    assert!(matches!(objects.node(objects.root), Node::Object(object) if object.made_by.is_none()));
}

#[test]
fn calls_that_harm_are_refused_by_name() {
    for (pickle, name) in [
        (&b"\x80\x02cposix\nsystem\nX\x02\x00\x00\x00ls\x85R."[..], "posix.system"),
        (b"\x80\x04\x8c\x0b__builtin__\x8c\x04eval\x93)R.", "builtins.eval"),
        (b"(isubprocess\nPopen\n.", "subprocess.Popen"),
        (b"(cos\nsystem\no.", "os.system"),
    ] {
        let error = error_of(pickle);
        assert!(error.contains(name), "{error}");
    }
    // A name alone is harmless.
    run(b"\x80\x02cposix\nsystem\n.");
    run(b"\x80\x02cos\nstat_result\n)R.");
}

#[test]
fn what_is_not_in_the_file_is_named() {
    for (pickle, reason) in [
        (&b"\x80\x02\x82\x01."[..], "EXT"),
        (b"\x80\x05\x97.", "NEXT_BUFFER"),
        (b"P1\n.", "PERSID"),
        (b"\x80\x06N.", "protocol 5 or older, found 6"),
        (b"\x80\x02\xff.", "operation 0xff at byte 2"),
    ] {
        let error = error_of(pickle);
        assert!(error.contains(reason), "{error}");
    }
}

#[test]
fn broken_programs_end_in_an_error() {
    for pickle in [
        &b""[..],
        b"\x80",
        b"\x80\x02",
        b"\x80\x02.",
        b"\x80\x02t.",
        b"\x80\x02h\x05.",
        b"\x80\x02NR.",
        b"\x80\x02(0.",
        b"\x80\x02X\xff\xff\xff\xffabc.",
        b"\x80\x02(\x85.",
        b"\x80\x02}(Nu.",
        b"\x80\x02ctorch",
        b"\x80\x02NQ.",
        b"\x80\x04\x8d\xff\xff\xff\xff\xff\xff\xff\xff.",
        b"\x80\x04NN\x93.",
        b"(o.",
        b"gx\n.",
        b"2.",
        b"1.",
    ] {
        error_of(pickle);
    }
}

#[test]
fn text_that_is_none_is_bytes() {
    let objects = run(b"\x80\x02X\x01\x00\x00\x00\xff.");
    assert!(matches!(objects.node(objects.root), Node::Bytes(_)));
}

#[test]
fn memory_is_bounded() {
    for operation in [&b"("[..], b"]"] {
        let pickle = operation.repeat(MOST_OBJECTS + 1);
        assert!(error_of(&pickle).contains("more than"), "{operation:?}");
    }
}
