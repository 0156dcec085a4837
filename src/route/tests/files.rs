use super::super::{Route, find_loop, read};

fn mistakes(file: &str) -> Vec<String> {
    read(file).unwrap_err().iter().map(ToString::to_string).collect()
}

#[test]
fn every_mistake_is_told_with_its_place() {
    let file = r#"[[route]]
name = "billing"
from = ["billing..x", "ok"]
match = "some"
split = "$.lines[*"
colour = 1

[[route.to]]
when = '''key == 'a' &&
   valu.a == 1'''
topic = "crm.a"
[[route.to]]
when = 'key == "a" && keyy == "b"'
topic = "value.x"
take = "$.a[*]"
[[route.to]]
topic = '"x" + 1 +'
headers = { tidelog-x = '1' }

[[route]]
from = "a"
aggregate = { timeout = "10" }
"#;
    let found = mistakes(file);
    let has = |text: &str| assert!(found.iter().any(|mistake| mistake.contains(text)), "{text}\n{found:#?}");
    has("line 3, column 9: route 'billing': from: topic name 'billing..x' has an empty level");
    has("line 4, column 9: route 'billing': 'match' is 'some'; it can be 'first' or 'all'");
    has("line 5, column 19: route 'billing': 'split' is no JSONPath");
    has("line 6, column 1: route 'billing': unknown key 'colour'");
    has("line 10, column 4: route 'billing': 'when': there is no variable 'valu'");
    has("line 13, column 23: route 'billing': 'when': there is no variable 'keyy'");
    has("line 14, column 9: route 'billing': topic 'value.x' could be a name or an expression");
    has("line 15, column 9: route 'billing': 'take' '$.a[*]' may find many; it must name one place");
    has("line 17, column ");
    has("line 18, column 13: route 'billing': headers: 'tidelog-x' is set by the server");
    has("line 20, column 1: route 2 has no name");
    has("line 22, column 25: route 2: aggregate: '10' is not a duration");
    has("line 20, column 1: route 2 goes nowhere");
    assert_eq!(found.len(), 13, "{found:#?}");
}

#[test]
fn broken_toml_is_told_with_its_place() {
    let found = mistakes("[[route]]\nname = \"a\nfrom = 'x'\nname = 5 6\n");
    assert!(found.iter().any(|mistake| mistake.starts_with("line 2, ")), "{found:?}");
    assert!(found.len() >= 2, "{found:?}");
    assert!(mistakes("").join("").contains("there is no [[route]]"));
    assert!(mistakes(&" ".repeat(600_000))[0].contains("600000 bytes; the limit is 524288"));
    let twice = mistakes("[[route]]\nname='a'\nfrom='x'\notherwise='y'\n[[route]]\nname='a'\nfrom='x'\notherwise='y'");
    assert_eq!(twice, ["line 5, column 1: there are two routes 'a'"]);
}

#[test]
fn a_declaration_reads_back_as_it_was() {
    let file = r#"
[[route]]
name = "billing"
from = ["billing.>", "erp.*.invoices"]
start = "beginning"
match = "all"
split = "$.lines[*]"
key = "part.id"
tap = "audit"
dead_letter = "dead"
create_topics = false
max_topics = 3
otherwise = { topic = "rest", take = "$.a", key = "key" }
[route.headers]
x = '"y"'
[[route.to]]
when = 'part.a == "x\n"'
topic = '"crm." + part.b'
shape = "{'a': part.a}"
headers = { z = "'1'" }
[[route]]
name = "back"
from = "parts"
aggregate = { timeout = "10m" }
otherwise = "wholes"
"#;
    for spec in read(file).unwrap() {
        let again = read(&spec.to_toml()).unwrap_or_else(|mistakes| panic!("{mistakes:?}\n{}", spec.to_toml()));
        assert_eq!(again, std::slice::from_ref(&spec), "{}", spec.to_toml());
        Route::compile(&spec).unwrap();
    }
}

#[test]
fn loops_are_found_also_through_wildcards_taps_and_dead_letters() {
    let one = |name: &str, from: &str, to: &str, more: &str| {
        format!("[[route]]\nname='{name}'\nfrom='{from}'\n{more}\n[[route.to]]\ntopic='{to}'\n")
    };
    let found = mistakes(&(one("a", "x", "y", "") + &one("b", "y", "z.q", "") + &one("c", "z.*", "x", "")));
    assert!(
        found[0].contains("route 'a' would route its own records again: topic 'y' is read by route 'b'"),
        "{found:?}"
    );
    assert!(found[0].ends_with("topic 'z.q' is read by route 'c', topic 'x' is read by route 'a'"), "{found:?}");
    assert!(mistakes(&one("a", "x.>", "x.y", ""))[0].contains("own records"));
    assert!(mistakes(&one("a", "x.>", "y", "tap='x.audit'"))[0].contains("own records"));
    assert!(mistakes(&one("a", ">", "dead-letter.a", ""))[0].contains("own records"));
    let fine = read(&(one("a", "x", "y", "") + &one("b", "x", "y", "") + &one("c", "y", "z", ""))).unwrap();
    assert_eq!(find_loop(&fine), None);
}

#[test]
fn random_text_never_panics() {
    let words = [
        "[[route]]\n",
        "[[route.to]]\n",
        "name = ",
        "from = ",
        "topic = ",
        "when = ",
        "split = ",
        "take = ",
        "'a'",
        "\"b\"",
        "'value.x == 1'",
        "'$.a[*]'",
        "'$..[?@.x]'",
        "[",
        "]",
        "{ ",
        " }",
        "\n",
        "1",
        "otherwise = ",
        "aggregate = ",
        "headers = ",
        "'''\nkey ==\n'''",
        "é",
        ",",
    ];
    let mut random = fastrand::Rng::with_seed(5);
    for _ in 0..5_000 {
        let text: String = (0..random.usize(1..25)).map(|_| words[random.usize(..words.len())]).collect();
        if let Err(mistakes) = read(&text) {
            assert!(!mistakes.is_empty(), "{text}");
        }
    }
}
