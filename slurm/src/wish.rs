//! The value of the SPANK plugin's option `--talea`: `capacity=2T,tier=pmem:/mnt,in=SRC:DST,out=SRC:DST`, in words of the `talea` command.
//!
//! Pure text. What is asked for is checked here, where the user still sees the answer.

/// What a job wishes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wish {
    /// Options of `talea up`.
    pub up: Vec<String>,
    /// Orders to stage in.
    pub bring_in: Vec<(String, String)>,
    /// Orders to stage out.
    pub out: Vec<(String, String)>,
    /// Options of `talea guard`.
    pub guard: Vec<String>,
}

/// Keys that become options of `talea up`.
const OPTIONS: [&str; 11] = [
    "capacity",
    "tier",
    "servers",
    "targets",
    "container",
    "fabric",
    "reserve-cores",
    "keep-steps",
    "lagging",
    "metrics",
    "persist",
];
/// Keys that become options of `talea guard`.
const GUARDS: [&str; 5] = ["drain", "events", "receipt", "record", "save-before"];

impl Wish {
    /// Takes the value apart. `on` alone, or nothing, is a wish for the site's defaults.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut wish = Self::default();
        for word in text.split(',').filter(|word| !word.is_empty() && *word != "on") {
            let wrong = |why: &str| format!("--talea={text}: '{word}' {why}");
            let (key, value) = word.split_once('=').ok_or_else(|| wrong("is not KEY=VALUE"))?;
            if value.is_empty() || value.contains(['\n', '\0']) {
                return Err(wrong("has no usable value"));
            }
            match key {
                "in" => wish.bring_in.push(pair(value).ok_or_else(|| wrong("is not in=SRC:/talea/CONTAINER/PATH"))?),
                "out" => {
                    let (source, destination) = value
                        .split_once(':')
                        .filter(|(source, destination)| source.starts_with("/talea/") && !destination.is_empty())
                        .ok_or_else(|| wrong("is not out=/talea/CONTAINER/PATH:DST"))?;
                    wish.out.push((source.to_owned(), destination.to_owned()));
                }
                "save-before" if value.parse::<u64>().is_err() => return Err(wrong("is no number of seconds")),
                "lagging" if !["keep", "drop", "block"].contains(&value) => {
                    return Err(wrong("is none of keep, drop and block"));
                }
                "drain" if !value.starts_with("/talea/") || !value.contains("{step}") => {
                    return Err(wrong("is not drain=/talea/CONTAINER/PATH:DST with {step} in DST"));
                }
                "capacity" if talea_model::size::parse(value).is_err() => {
                    return Err(wrong("is no size: write a number with K, M, G or T, such as 64G"));
                }
                "servers" | "targets" | "reserve-cores" | "keep-steps" if value.parse::<u64>().is_err() => {
                    return Err(wrong("is no number"));
                }
                "metrics" => wish.up.push(format!("--metrics={value}")),
                _ if OPTIONS.contains(&key) => wish.up.extend([format!("--{key}"), value.to_owned()]),
                _ if GUARDS.contains(&key) => wish.guard.extend([format!("--{key}"), value.to_owned()]),
                _ => {
                    let (options, guards) = (OPTIONS.join(", "), GUARDS.join(", "));
                    return Err(wrong(&format!("is not known; there are in, out, {options}, {guards}")));
                }
            }
        }
        Ok(wish)
    }
}

impl Wish {
    /// How many cores of each node tasks leave to the servers.
    pub fn reserved_cores(&self) -> usize {
        let value = self.up.iter().skip_while(|word| *word != "--reserve-cores").nth(1);
        value.and_then(|text| text.parse().ok()).unwrap_or(0)
    }
}

fn pair(value: &str) -> Option<(String, String)> {
    let at = value.find(":/talea/")?;
    (at > 0).then(|| (value[..at].to_owned(), value[at + 1..].to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wishes_are_understood_or_named() {
        assert_eq!(Wish::parse("on").unwrap(), Wish::default());
        let wish = Wish::parse("capacity=2T,in=/a/b:/talea/run/b,out=/talea/run/c:/a/c,tier=pmem:/mnt").unwrap();
        assert_eq!(wish.up, ["--capacity", "2T", "--tier", "pmem:/mnt"]);
        assert_eq!(wish.bring_in, [("/a/b".to_owned(), "/talea/run/b".to_owned())]);
        assert_eq!(wish.reserved_cores(), 0);
        assert_eq!(wish.out, [("/talea/run/c".to_owned(), "/a/c".to_owned())]);
        assert_eq!(Wish::parse("capacity=1G,reserve-cores=3").unwrap().reserved_cores(), 3);
        let wish = Wish::parse("save-before=30,drain=/talea/run/x:/a/x-{step},lagging=block,metrics=unix").unwrap();
        assert_eq!(wish.guard, ["--save-before", "30", "--drain", "/talea/run/x:/a/x-{step}"]);
        assert_eq!(wish.up, ["--lagging", "block", "--metrics=unix"]);
        for bad in [
            "capcity=1",
            "capacity",
            "in=/a",
            "out=/a:/b",
            "capacity=",
            "in=:/talea/run/x",
            "capacity=1Q",
            "targets=x",
            "save-before=1m",
            "drain=/talea/run/x:/a/x",
            "lagging=sometimes",
        ] {
            let error = Wish::parse(bad).unwrap_err();
            assert!(error.contains(bad), "{error}");
        }
    }
}
