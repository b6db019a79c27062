//! Writing ONNX files: the few messages of its protobuf schema that a computation graph needs.
//!
//! Field numbers are those of `onnx.proto`. A message is built as bytes, inner ones first; protobuf's wire format puts a
//! length before each, so nothing has to be known in advance.

/// Element types (`TensorProto.DataType`).
pub const FLOAT: u64 = 1;
pub const UINT8: u64 = 2;
pub const INT64: u64 = 7;

/// Kinds of attribute (`AttributeProto.AttributeType`).
const KIND_FLOAT: u64 = 1;
const KIND_INT: u64 = 2;
const KIND_INTS: u64 = 7;

/// Of `ai.onnx`: the first that has `Gelu`.
const OPSET: u64 = 20;
/// Of the file format, as of that opset.
const IR_VERSION: u64 = 9;
/// Operators for weights of four bits.
pub const CONTRIB: &str = "com.microsoft";

#[derive(Default)]
struct Message(Vec<u8>);

impl Message {
    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push((value & 0x7f) as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    fn int(&mut self, field: u64, value: u64) -> &mut Self {
        self.varint(field << 3);
        self.varint(value);
        self
    }

    fn float(&mut self, field: u64, value: f32) -> &mut Self {
        self.varint(field << 3 | 5);
        self.0.extend(value.to_le_bytes());
        self
    }

    fn bytes(&mut self, field: u64, value: &[u8]) -> &mut Self {
        self.varint(field << 3 | 2);
        self.varint(value.len() as u64);
        self.0.extend(value);
        self
    }

    fn text(&mut self, field: u64, value: &str) -> &mut Self {
        self.bytes(field, value.as_bytes())
    }
}

/// An attribute's value.
pub enum Value<'a> {
    Float(f32),
    Int(i64),
    Ints(&'a [i64]),
}

/// A computation graph under construction.
#[derive(Default)]
pub struct Graph {
    graph: Message,
    values: usize,
}

impl Graph {
    /// Adds an operation with one result, and returns the result's name.
    pub fn node(&mut self, domain: &str, kind: &str, inputs: &[&str], attributes: &[(&str, Value)]) -> String {
        self.values += 1;
        let name = format!("{kind}-{}", self.values);
        self.named_node(domain, kind, inputs, attributes, &name);
        name
    }

    pub fn named_node(
        &mut self,
        domain: &str,
        kind: &str,
        inputs: &[&str],
        attributes: &[(&str, Value)],
        output: &str,
    ) {
        let mut node = Message::default();
        for input in inputs {
            node.text(1, input);
        }
        node.text(2, output).text(3, output).text(4, kind);
        for (name, value) in attributes {
            let mut attribute = Message::default();
            attribute.text(1, name);
            match value {
                Value::Float(value) => attribute.float(2, *value).int(20, KIND_FLOAT),
                Value::Int(value) => attribute.int(3, *value as u64).int(20, KIND_INT),
                Value::Ints(values) => {
                    for value in *values {
                        attribute.int(8, *value as u64);
                    }
                    attribute.int(20, KIND_INTS)
                }
            };
            node.bytes(5, &attribute.0);
        }
        node.text(7, domain);
        self.graph.bytes(1, &node.0);
    }

    /// Adds constant data, row by row, in little-endian bytes.
    pub fn tensor(&mut self, name: &str, element: u64, shape: &[usize], data: &[u8]) {
        let mut tensor = Message::default();
        for size in shape {
            tensor.int(1, *size as u64);
        }
        tensor.int(2, element).text(8, name).bytes(9, data);
        self.graph.bytes(5, &tensor.0);
    }

    pub fn floats(&mut self, name: &str, shape: &[usize], values: &[f32]) {
        let data: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.tensor(name, FLOAT, shape, &data);
    }

    pub fn ints(&mut self, name: &str, values: &[i64]) {
        let data: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.tensor(name, INT64, &[values.len()], &data);
    }

    /// Names an input; sizes that vary have a name.
    pub fn input(&mut self, name: &str, element: u64, shape: &[Result<usize, &str>]) {
        let info = value_info(name, element, shape);
        self.graph.bytes(11, &info);
    }

    pub fn output(&mut self, name: &str, element: u64, shape: &[Result<usize, &str>]) {
        let info = value_info(name, element, shape);
        self.graph.bytes(12, &info);
    }

    /// The file.
    pub fn finish(mut self, name: &str) -> Vec<u8> {
        self.graph.text(2, name);
        let mut model = Message::default();
        model.int(1, IR_VERSION).text(2, "frontdesk xtask").bytes(7, &self.graph.0);
        for (domain, version) in [("", OPSET), (CONTRIB, 1)] {
            let mut set = Message::default();
            set.text(1, domain).int(2, version);
            model.bytes(8, &set.0);
        }
        model.0
    }
}

fn value_info(name: &str, element: u64, shape: &[Result<usize, &str>]) -> Vec<u8> {
    let mut dimensions = Message::default();
    for size in shape {
        let mut dimension = Message::default();
        match size {
            Ok(size) => dimension.int(1, *size as u64),
            Err(name) => dimension.text(2, name),
        };
        dimensions.bytes(1, &dimension.0);
    }
    let mut tensor = Message::default();
    tensor.int(1, element).bytes(2, &dimensions.0);
    let mut kind = Message::default();
    kind.bytes(1, &tensor.0);
    let mut info = Message::default();
    info.text(1, name).bytes(2, &kind.0);
    info.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_protobuf() {
        let mut message = Message::default();
        message.int(1, 300).text(2, "ab").float(3, 1.0);
        assert_eq!(message.0, [0x08, 0xac, 0x02, 0x12, 2, b'a', b'b', 0x1d, 0, 0, 0x80, 0x3f]);
    }
}
