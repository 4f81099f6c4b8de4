//! Malformed events by sort, each with what is said of it. Written to `tests/data/malformed.json` for tests that go the whole way.

use crate::decode::Reason::{self, *};
use crate::domain::observation::Fault::{self, Clamped, Coerced, Cut, Invalid};

/// What becomes of an event.
pub enum Expect {
    /// Refused, with these words in the detail.
    No(Reason, &'static str),
    /// Read, with exactly these faults.
    Yes(Vec<(String, Fault)>),
}

pub struct Row {
    pub sort: &'static str,
    /// Pieces of the payload, each so many times over: a megabyte need not stand in the file.
    pub parts: Vec<(Vec<u8>, usize)>,
    pub expect: Expect,
}

impl Row {
    pub fn payload(&self) -> Vec<u8> {
        self.parts.iter().flat_map(|(bytes, times)| bytes.repeat(*times)).collect()
    }
}

#[derive(Default)]
struct Table(Vec<Row>);

impl Table {
    fn parts(&mut self, sort: &'static str, parts: &[(&[u8], usize)], expect: Expect) {
        self.0.push(Row { sort, parts: parts.iter().map(|(bytes, times)| (bytes.to_vec(), *times)).collect(), expect });
    }
    fn bytes(&mut self, sort: &'static str, bytes: &[u8], expect: Expect) {
        self.parts(sort, &[(bytes, 1)], expect);
    }
    fn refused(&mut self, sort: &'static str, text: &str, reason: Reason, detail: &'static str) {
        self.bytes(sort, text.as_bytes(), Expect::No(reason, detail));
    }
    fn read(&mut self, sort: &'static str, text: &str, faults: &[(&str, Fault)]) {
        self.bytes(sort, text.as_bytes(), Expect::Yes(owned(faults)));
    }
    /// A prediction with one member more.
    fn member(&mut self, sort: &'static str, member: &str, faults: &[(&str, Fault)]) {
        self.read(sort, &prediction(member), faults);
    }
}

fn owned(faults: &[(&str, Fault)]) -> Vec<(String, Fault)> {
    faults.iter().map(|(field, fault)| ((*field).to_owned(), *fault)).collect()
}

fn prediction(member: &str) -> String {
    format!(r#"{{"kind":"prediction","id":"p-1","model":"m",{member}}}"#)
}

/// At least 200 of them.
pub fn malformed() -> Vec<Row> {
    let mut t = Table::default();
    encodings(&mut t);
    syntax(&mut t);
    numbers(&mut t);
    times(&mut t);
    missing(&mut t);
    kinds(&mut t);
    types(&mut t);
    bounds(&mut t);
    t.0
}

fn encodings(t: &mut Table) {
    let with = |bytes: &[u8]| [b"{\"kind\":\"prediction\",\"id\":\"p-1\",\"model\":\"m\",\"label\":\"".as_slice(), bytes, b"\"}".as_slice()].concat();
    for bad in [&b"\xff"[..], b"\xc3\x28", b"\xed\xa0\x80", b"\xf5\x80\x80\x80", b"\xc0\xaf", b"\x80", b"\xe2\x82", b"caf\xe9"] {
        t.bytes("bad UTF-8", &with(bad), Expect::No(NotUtf8, "is not UTF-8"));
    }
    t.bytes("bad UTF-8", b"\xff\xfe\xfd", Expect::No(NotUtf8, "UTF-16"));
    t.bytes("bad UTF-8", b"\x1f\x8b\x08\x00\x00", Expect::No(NotUtf8, "0x8b at 1"));
    t.bytes("bad UTF-8", b"\x00\x00\x00\x00\x07\xff", Expect::No(NotUtf8, "0xff at 5"));
    for wide in ["{\"kind\":\"prediction\"}", "[1]"] {
        let little: Vec<u8> = wide.encode_utf16().flat_map(u16::to_le_bytes).collect();
        let big: Vec<u8> = wide.encode_utf16().flat_map(u16::to_be_bytes).collect();
        for (mark, bytes) in [(&b"\xff\xfe"[..], &little), (b"", &little), (b"\xfe\xff", &big), (b"", &big)] {
            t.bytes("UTF-16", &[mark, bytes].concat(), Expect::No(NotUtf8, "UTF-16"));
        }
    }
    t.bytes("NUL", &with(b"a\0b"), Expect::No(BadJson, "control character"));
    t.bytes("NUL", b"\0", Expect::No(BadJson, "found \\u{0}"));
    t.bytes("NUL", b"{\0}", Expect::No(NotUtf8, "looks like UTF-16"));
    t.bytes("NUL", b"{\"kind\":\"prediction\",\"id\":\"p-1\",\"model\":\"m\"}\0", Expect::No(BadJson, "one event per record"));
    t.member("NUL", r#""label":"a\u0000b""#, &[]);
    for half in [r"\ud800", r"\udc00", r"\ud800\ud800", r"\ud83d\n", r"\uDBFFx", r"\ud83d\u0041"] {
        t.bytes("surrogates", &with(half.as_bytes()), Expect::No(BadJson, "surrogate pair"));
    }
    t.member("surrogates", r#""label":"\ud83d\ude00""#, &[]);
    // Nobody reads the member, so nobody minds.
    t.member("surrogates", r#""zzz":"\ud800""#, &[]);
    t.read("BOM", "\u{feff}{\"kind\":\"prediction\",\"id\":\"p-1\",\"model\":\"m\"}", &[]);
    t.refused("BOM", "\u{feff}", BadJson, "found nothing");
    t.refused("BOM", "\u{feff}\u{feff}{}", BadJson, "expected an object");
    t.refused("BOM", "{\u{feff}\"kind\":\"prediction\"}", BadJson, "not JSON at byte 1");
    t.read("CRLF", "\r\n{\"kind\":\"prediction\",\r\n\"id\":\"p-1\",\"model\":\"m\"}\r\n", &[]);
    t.read("CRLF", "{\"kind\":\"heartbeat\",\"model\":\"m\"}\r", &[]);
    t.bytes("CRLF", &with(b"a\r\nb"), Expect::No(BadJson, "control character"));
    t.read("CRLF", "\t {\"kind\":\"heartbeat\",\"model\":\"m\"}\n\n", &[]);
}

fn syntax(t: &mut Table) {
    for empty in ["", " ", "\r\n", "\t\t\n"] {
        t.refused("empty", empty, BadJson, "found nothing");
    }
    t.refused("empty", "{}", MissingField, "missing \"kind\"");
    for other in ["null", "true", "42", "\"kind\"", "event", "<xml/>", "kind=prediction"] {
        t.refused("no object", other, BadJson, "expected an object");
    }
    for array in ["[]", "[{\"kind\":\"heartbeat\",\"model\":\"m\"}]", " [1,2]"] {
        t.refused("array", array, BadJson, "send each event as a record of its own");
    }
    for early in ["{", "{\"kind\"", "{\"kind\":", "{\"kind\":\"prediction\"", "{\"kind\":\"pred", "{\"a\":[1,", "{\"a\":tru"] {
        t.refused("cut off", early, BadJson, "ends too early");
    }
    for wrong in ["{'kind':'prediction'}", "{kind:\"prediction\"}", "{\"kind\":\"prediction\",}", "{,}", "{\"a\" 1}", "{\"a\":01}", "{\"a\":+1}"] {
        t.refused("no JSON", wrong, BadJson, "not JSON at byte");
    }
    for wrong in ["{\"a\":.5}", "{\"a\":1.}", "{\"a\":0x10}", "{\"a\":True}", "{\"a\":None}", "{\"a\":\"\\x41\"}", "{\"a\":}", "{/*c*/}", "{1:2}"] {
        t.refused("no JSON", wrong, BadJson, "not JSON at byte");
    }
    for two in ["{}{}", "{} {}", "{\"kind\":\"heartbeat\",\"model\":\"m\"}\n{\"kind\":\"heartbeat\",\"model\":\"m\"}", "{}]"] {
        t.refused("two events", two, BadJson, "one event per record");
    }
    t.refused("duplicate keys", &prediction(r#""id":"p-2""#), BadJson, "duplicate member \"id\"");
    t.refused("duplicate keys", &prediction(r#""kind":"outcome""#), BadJson, "duplicate member \"kind\"");
    t.refused("duplicate keys", &prediction(r#""latency_ms":1,"latency_ms":2"#), BadJson, "duplicate member \"latency_ms\"");
    t.refused("duplicate keys", &prediction(r#""\u006dodel":"n""#), BadJson, "duplicate member \"model\"");
    for object in ["features", "segments", "scores", "flags", "groups", "cost", "error"] {
        t.refused("duplicate keys", &prediction(&format!(r#""{object}":{{"a":1,"b":2,"a":3}}"#)), BadJson, "duplicate member \"a\" in");
    }
    t.member("duplicate keys", r#""zzz":1,"zzz":2"#, &[]);
}

fn numbers(t: &mut Table) {
    for word in ["NaN", "Infinity", "-Infinity", "nan", "inf"] {
        t.refused("NaN bare", &prediction(&format!(r#""latency_ms":{word}"#)), BadJson, "not JSON at byte");
        t.member("NaN as text", &format!(r#""latency_ms":"{word}""#), &[("latency_ms", Invalid)]);
        t.member("NaN as text", &format!(r#""features":{{"income":"{word}","age":3}}"#), &[("features.income", Invalid)]);
    }
    for huge in ["1e999", "-1e999", "9e308", "1E+400"] {
        t.member("1e999", &format!(r#""score":{huge}"#), &[("score", Invalid)]);
    }
    t.member("1e999", r#""features":{"a":1e999,"b":2}"#, &[("features.a", Invalid)]);
    t.member("1e999", r#""features":{"a":[1,1e999]}"#, &[("features.a", Invalid)]);
    t.member("1e999", r#""zzz":1e999"#, &[]);
    t.member("1e999", r#""score":1e-999"#, &[]);
    t.member("1e999", r#""latency_ms":"1e999""#, &[("latency_ms", Invalid)]);
    t.member("1e999", r#""cost":{"amount":1e999}"#, &[("cost.amount", Invalid)]);
    t.refused("1e999", r#"{"kind":"prediction","id":1e999,"model":"m"}"#, MissingField, "unusable \"id\"");
    for member in ["latency_ms", "first_token_ms", "input_tokens", "output_tokens", "cached_tokens", "reasoning_tokens", "cost_usd", "attempt"] {
        t.member("negative", &format!(r#""{member}":-1"#), &[(member, Invalid)]);
        t.member("number as text", &format!(r#""{member}":"12.5""#), &[(member, Coerced)]);
    }
    t.member("negative", r#""cost":{"amount":-0.5,"currency":"USD"}"#, &[("cost.amount", Invalid)]);
    t.member("negative", r#""latency_ms":"-3""#, &[("latency_ms", Invalid)]);
    t.member("negative", r#""score":-3"#, &[]);
    t.member("number as text", r#""latency_ms":" 7 ""#, &[("latency_ms", Coerced)]);
    for text in ["", "fast", "1,5", "12ms", "0x10", "1_000"] {
        t.member("no number as text", &format!(r#""latency_ms":"{text}""#), &[("latency_ms", Invalid)]);
    }
    t.member("beyond its range", r#""scores":{"a":1.5,"b":0.5,"c":-0.1}"#, &[("scores.a", Invalid), ("scores.c", Invalid)]);
    t.member(
        "beyond its range",
        r#""flags":{"harmful":1.5,"leak":"maybe","injection":"confirmed"}"#,
        &[("flags.harmful", Invalid), ("flags.leak", Invalid)],
    );
    t.member("number as text", r#""flags":{"harmful":"true","leak":"0.3"}"#, &[("flags.harmful", Coerced), ("flags.leak", Coerced)]);
    t.read("integer beyond 2^53", r#"{"kind":"prediction","id":9007199254740993,"model":"m"}"#, &[("id", Coerced)]);
    t.refused("fraction as id", r#"{"kind":"prediction","id":1.5,"model":"m"}"#, MissingField, "unusable \"id\"");
}

fn times(t: &mut Table) {
    for time in ["0", "-1", "-1795166043120", "1e300", "\"9999-12-31T23:59:59Z\"", "\"0001-01-01T00:00:00Z\"", "253402300799000", "1e999"] {
        t.member("impossible time", &format!(r#""time":{time}"#), &[("time", Invalid)]);
    }
    for time in ["\"\"", "\"yesterday\"", "\"2026-13-01T00:00:00Z\"", "\"2026-11-20\"", "\"09:14\"", "true", "{}", "[1]", "\"20/11/2026 09:14\""] {
        t.member("no time", &format!(r#""time":{time}"#), &[("time", Invalid)]);
    }
    for time in ["1795166043", "1795166043120", "1795166043120000", "1795166043120000000", "\"2026-11-20T10:14:03+01:00\"", "null"] {
        t.member("any unit", &format!(r#""time":{time}"#), &[]);
    }
    for time in ["17951660431", "179516604312000", "63115"] {
        t.member("wrong unit", &format!(r#""time":{time}"#), &[("time", Invalid)]);
    }
    t.member("time as text", r#""time":"1795166043120""#, &[("time", Coerced)]);
    for time in ["\"2026-11-20T09:19:03.121Z\"", "\"2150-01-01T00:00:00Z\"", "1795252443"] {
        t.member("future", &format!(r#""time":{time}"#), &[("time", Clamped)]);
    }
    t.member("future", r#""time":"2026-11-20T09:19:03.120Z""#, &[]);
    t.read("no time", r#"{"kind":"outcome","prediction_id":"p","label":"x","observed_at":"never"}"#, &[("observed_at", Invalid)]);
    t.read("no time", r#"{"kind":"pipeline","job":"j","state":"failed","nominal_time":0}"#, &[("nominal_time", Invalid)]);
}

fn missing(t: &mut Table) {
    let rows: &[(&str, &str)] = &[
        (r#"{"kind":"prediction","model":"m"}"#, "missing \"id\": a prediction event needs it"),
        (r#"{"kind":"prediction","id":"","model":"m"}"#, "unusable \"id\""),
        (r#"{"kind":"prediction","id":null,"model":"m"}"#, "missing \"id\""),
        (r#"{"kind":"prediction","id":{},"model":"m"}"#, "unusable \"id\""),
        (r#"{"kind":"prediction","id":"p"}"#, "missing \"model\""),
        (r#"{"kind":"prediction","id":"p","model":""}"#, "unusable \"model\""),
        (r#"{"kind":"prediction","id":"p","model":["m"]}"#, "unusable \"model\""),
        (r#"{"kind":"outcome","label":"x"}"#, "missing \"prediction_id\""),
        (r#"{"kind":"outcome","prediction_id":"p"}"#, "missing \"label\": a outcome event needs it (or \"value\""),
        (r#"{"kind":"quality","value":1,"model":"m"}"#, "missing \"name\""),
        (r#"{"kind":"quality","name":"q","model":"m"}"#, "missing \"value\""),
        (r#"{"kind":"quality","name":"q","value":1}"#, "missing \"prediction_id\""),
        (r#"{"kind":"quality","name":"q","value":1,"trace_id":"t"}"#, "missing \"prediction_id\""),
        (r#"{"kind":"feedback"}"#, "missing \"kind_of\""),
        (r#"{"kind":"feedback","kind_of":""}"#, "missing \"kind_of\""),
        (r#"{"kind":"deployment","phase":"finished"}"#, "missing \"target\""),
        (r#"{"kind":"deployment","target":{"kind":"model"},"phase":"finished"}"#, "missing \"target\""),
        (r#"{"kind":"deployment","target":"m","phase":"finished"}"#, "unusable \"target\""),
        (r#"{"kind":"deployment","target":{"kind":"model","name":"m"}}"#, "missing \"phase\""),
        (r#"{"kind":"pipeline","state":"failed"}"#, "missing \"job\""),
        (r#"{"kind":"pipeline","job":"j"}"#, "missing \"state\""),
        (r#"{"kind":"report","summary":"s","source_of_report":"user"}"#, "missing \"id\""),
        (r#"{"kind":"report","id":"r","source_of_report":"user"}"#, "missing \"summary\""),
        (r#"{"kind":"report","id":"r","summary":"s"}"#, "missing \"source_of_report\""),
        (r#"{"kind":"heartbeat"}"#, "missing \"producer\": a heartbeat event needs it (or \"model\""),
    ];
    for (text, detail) in rows {
        t.refused("missing field", text, MissingField, detail);
    }
}

fn kinds(t: &mut Table) {
    t.refused("no kind", r#"{"id":"p","model":"m"}"#, MissingField, "known: prediction, outcome");
    t.refused("no kind", r#"{"kind":null,"id":"p","model":"m"}"#, MissingField, "missing \"kind\"");
    t.refused("unknown kind", r#"{"kind":"alert"}"#, UnknownKind, "known: prediction, outcome");
    t.refused("unknown kind", r#"{"kind":""}"#, UnknownKind, "unknown kind \"\"");
    for kind in ["5", "true", "[]", "{}"] {
        t.refused("unknown kind", &format!(r#"{{"kind":{kind}}}"#), UnknownKind, "must be text");
    }
    for (kind, detail) in [
        ("predction", "did you mean \"prediction\""),
        ("Prediction", "did you mean \"prediction\""),
        ("outcomes", "did you mean \"outcome\""),
        ("heart-beat", "did you mean \"heartbeat\""),
        ("deployement", "did you mean \"deployment\""),
        ("feedbak", "did you mean \"feedback\""),
        ("pipelin", "did you mean \"pipeline\""),
        ("qualty", "did you mean \"quality\""),
        ("\\u001b[31m", "unknown kind"),
    ] {
        t.refused("misspelt kind", &format!(r#"{{"kind":"{kind}"}}"#), UnknownKind, detail);
    }
    for schema in ["2", "0", "-1", "1.5", "\"v1\"", "[]"] {
        t.refused("unknown schema", &prediction(&format!(r#""schema":{schema}"#)), UnknownSchema, "must be 1 or absent");
    }
    t.member("schema as text", r#""schema":"1""#, &[("schema", Coerced)]);
    t.refused("unknown word", r#"{"kind":"feedback","kind_of":"star"}"#, SchemaMismatch, "known: thumb, rating");
    t.refused("unknown word", r#"{"kind":"pipeline","job":"j","state":"done"}"#, SchemaMismatch, "known: started, running");
    t.refused("unknown word", r#"{"kind":"report","id":"r","summary":"s","source_of_report":"press"}"#, SchemaMismatch, "known: user");
    t.member("unknown word", r#""status":"OK""#, &[("status", Invalid)]);
    t.member("unknown word", r#""status":"failed""#, &[("status", Invalid)]);
}

fn types(t: &mut Table) {
    let numbers = ["latency_ms", "first_token_ms", "score", "input_tokens", "output_tokens", "cost_usd", "attempt"];
    for member in numbers {
        for wrong in ["true", "{}", "[1]"] {
            t.member("wrong type", &format!(r#""{member}":{wrong}"#), &[(member, Invalid)]);
        }
    }
    for member in ["output", "label", "version", "environment", "finish_reason", "trace_id", "span_id", "session_id", "user"] {
        for wrong in ["{}", "[\"a\"]"] {
            t.member("wrong type", &format!(r#""{member}":{wrong}"#), &[(member, Invalid)]);
        }
    }
    for member in ["version", "environment", "finish_reason", "trace_id", "session_id", "user"] {
        t.member("number as text", &format!(r#""{member}":7"#), &[(member, Coerced)]);
    }
    for member in ["output_empty", "cache_hit"] {
        t.member("wrong type", &format!(r#""{member}":"yes""#), &[(member, Invalid)]);
        t.member("wrong type", &format!(r#""{member}":2"#), &[(member, Invalid)]);
        t.member("boolean as number", &format!(r#""{member}":1"#), &[(member, Coerced)]);
    }
    for member in ["segments", "features", "scores", "flags", "groups", "cost"] {
        for wrong in ["7", "\"a\"", "[1]", "true"] {
            t.member("wrong type", &format!(r#""{member}":{wrong}"#), &[(member, Invalid)]);
        }
        t.member("null", &format!(r#""{member}":null"#), &[]);
    }
    t.member("wrong type", r#""status":3"#, &[("status", Invalid)]);
    t.member("wrong type", r#""error":5"#, &[("error", Invalid)]);
    t.member(
        "wrong type",
        r#""features":{"a":{"b":1},"c":[],"d":["x"],"e":[[1]]}"#,
        &[("features.a", Invalid), ("features.c", Invalid), ("features.d", Invalid), ("features.e", Invalid)],
    );
    t.member("wrong type", r#""segments":{"region":["eu"],"tier":7,"x":null}"#, &[("segments.region", Invalid), ("segments.tier", Coerced)]);
    t.member("wrong type", r#""cost":{"amount":"0.5","currency":5}"#, &[("cost.amount", Coerced), ("cost.currency", Coerced)]);
    t.read(
        "wrong type",
        r#"{"kind":"pipeline","job":"j","state":"failed","outputs":[5,{"name":"a"}],"assertions":[{"name":"n","success":"no"}]}"#,
        &[("outputs", Invalid), ("assertions", Invalid)],
    );
    t.read("wrong type", r#"{"kind":"heartbeat","model":"m","expected_interval_s":0}"#, &[("expected_interval_s", Invalid)]);
    t.read(
        "wrong type",
        r#"{"kind":"deployment","target":{"kind":"model","name":"m"},"phase":"finished","traffic_percent":150}"#,
        &[("traffic_percent", Invalid)],
    );
}

fn bounds(t: &mut Table) {
    let open: &[u8] = br#"{"kind":"prediction","id":"p-1","model":"m","#;
    t.parts("too large", &[(open, 1), (b"\"output\":\"", 1), (b"x", 1 << 20), (b"\"}", 1)], Expect::No(TooLarge, "more than 1048576"));
    t.parts("too large", &[(b" ", (1 << 20) + 1)], Expect::No(TooLarge, "has 1048577 bytes"));
    t.parts("too large", &[(b"{", 1), (b"\"k\":1,", 1_000_000), (b"\"k\":1}", 1)], Expect::No(TooLarge, "more than 1048576"));
    t.parts("too deep", &[(b"[", 100_000)], Expect::No(TooDeep, "more than 32"));
    t.parts("too deep", &[(open, 1), (b"\"zzz\":", 1), (b"[", 100_000), (b"]", 100_000), (b"}", 1)], Expect::No(TooDeep, "more than 32"));
    t.parts("too deep", &[(b"{\"a\":", 33), (b"1", 1), (b"}", 33)], Expect::No(TooDeep, "at byte 160"));
    t.parts("too deep", &[(open, 1), (b"\"features\":{\"a\":", 1), (b"[", 31), (b"]", 31), (b"}}", 1)], Expect::No(TooDeep, "more than 32"));
    t.parts("deep enough", &[(open, 1), (b"\"zzz\":", 1), (b"[", 31), (b"]", 31), (b"}", 1)], Expect::Yes(vec![]));
    t.parts("brackets in text", &[(open, 1), (b"\"label\":\"", 1), (b"[", 1_000), (b"\"}", 1)], Expect::Yes(vec![]));
    t.parts("many keys", &[(b"{", 1), (b"\"k\":1,", 2_049), (b"\"k\":1}", 1)], Expect::No(TooLarge, "more than 2048 members"));
    let features: String = (0..2_050).map(|i| format!("\"f{i}\":{i},")).collect();
    t.read("many features", &prediction(&format!(r#""features":{{{features}"z":1}}"#)), &[("features", Cut)]);
    t.parts("long text", &[(open, 1), (b"\"output\":\"", 1), (b"x", 65_537), (b"\"}", 1)], Expect::Yes(owned(&[("output", Cut)])));
    t.parts("long text", &[(open, 1), (b"\"output\":\"", 1), (b"x", 65_536), (b"\"}", 1)], Expect::Yes(vec![]));
    t.parts("long text", &[(open, 1), (b"\"label\":\"", 1), ("\u{e9}".as_bytes(), 2_049), (b"\"}", 1)], Expect::Yes(owned(&[("label", Cut)])));
    t.parts("long text", &[(open, 1), (b"\"version\":\"", 1), (b"v", 129), (b"\"}", 1)], Expect::Yes(owned(&[("version", Cut)])));
    t.parts("long text", &[(open, 1), (b"\"error\":\"", 1), (b"e", 4_097), (b"\"}", 1)], Expect::Yes(owned(&[("error", Cut)])));
    t.parts(
        "long text",
        &[(open, 1), (b"\"segments\":{\"region\":\"", 1), (b"e", 4_097), (b"\"}}", 1)],
        Expect::Yes(owned(&[("segments.region", Cut)])),
    );
    t.parts(
        "long name",
        &[(open, 1), (b"\"features\":{\"", 1), (b"f", 257), (b"\":1,\"a\":2}}", 1)],
        Expect::Yes(vec![(format!("features.{}", "f".repeat(64)), Invalid)]),
    );
    t.parts("long number", &[(open, 1), (b"\"latency_ms\":\"", 1), (b"1", 100_000), (b"\"}", 1)], Expect::Yes(owned(&[("latency_ms", Invalid)])));
    t.parts("long number", &[(open, 1), (b"\"latency_ms\":", 1), (b"1", 400), (b"}", 1)], Expect::Yes(owned(&[("latency_ms", Invalid)])));
    t.parts("long number", &[(open, 1), (b"\"latency_ms\":0.", 1), (b"1", 100_000), (b"}", 1)], Expect::Yes(vec![]));
    t.parts(
        "long id",
        &[(b"{\"kind\":\"prediction\",\"model\":\"m\",\"id\":\"", 1), (b"i", 257), (b"\"}", 1)],
        Expect::No(SchemaMismatch, "has 257 bytes"),
    );
    t.parts("long id", &[(b"{\"kind\":\"prediction\",\"model\":\"m\",\"id\":\"", 1), (b"i", 256), (b"\"}", 1)], Expect::Yes(vec![]));
    t.parts(
        "long id",
        &[(b"{\"kind\":\"prediction\",\"id\":\"p\",\"model\":\"", 1), (b"m", 129), (b"\"}", 1)],
        Expect::No(SchemaMismatch, "at most 128"),
    );
    t.parts("long id", &[(open, 1), (b"\"trace_id\":\"", 1), (b"t", 257), (b"\"}", 1)], Expect::Yes(owned(&[("trace_id", Invalid)])));
    t.parts("long key", &[(open, 1), (b"\"", 1), (b"k", 500_000), (b"\":1}", 1)], Expect::Yes(vec![]));
    t.parts(
        "many numbers",
        &[(open, 1), (b"\"features\":{\"e\":[1", 1), (b",1", 4_096), (b"]}}", 1)],
        Expect::Yes(owned(&[("features.e", Invalid)])),
    );
}
