//! The hostile inputs of `tests/data/hostile.json`, and samples of the Java classes' JSON.

use serde::Deserialize;

/// Input and its expected outcome.
#[derive(Deserialize)]
pub(crate) struct Hostile {
    pub(crate) decoder: String,
    pub(crate) name: String,
    pub(crate) bytes: Recipe,
    pub(crate) expect: Expected,
}

#[derive(Deserialize)]
pub(crate) enum Expected {
    #[serde(rename = "error")]
    Error,
    #[serde(rename = "nothing")]
    Nothing,
    #[serde(rename = "value")]
    Value,
    #[serde(rename = "value or error")]
    ValueOrError,
}

/// Recipe for bytes, so that large inputs take little room in a file.
#[derive(Deserialize)]
#[serde(untagged)]
pub(crate) enum Recipe {
    Hex(String),
    Repeated(Box<Self>, usize),
    Row(Vec<Self>),
}

impl Recipe {
    pub(crate) fn expand(&self) -> Vec<u8> {
        match self {
            Self::Hex(text) => {
                let digits: Vec<u32> = text.chars().map(|digit| digit.to_digit(16).unwrap()).collect();
                digits.chunks(2).map(|pair| u8::try_from(pair[0] << 4 | pair[1]).unwrap()).collect()
            }
            Self::Repeated(part, times) => part.expand().repeat(*times),
            Self::Row(parts) => parts.iter().flat_map(Self::expand).collect(),
        }
    }
}

pub(crate) fn hostile() -> Vec<Hostile> {
    serde_json::from_str(include_str!("../data/hostile.json")).unwrap()
}

/// JSON written by the Java classes of 4.9.7 and 5.5.0.
pub(crate) fn java_bodies() -> Vec<Vec<u8>> {
    #[derive(Deserialize)]
    struct Sample {
        json: String,
    }

    let samples: Vec<Sample> = serde_json::from_str(include_str!("../data/bodies.json")).unwrap();
    samples.into_iter().map(|sample| sample.json.into_bytes()).collect()
}
