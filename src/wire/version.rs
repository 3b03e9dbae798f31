//! Version numbers of servers and clients: positions in a long list of the Java client (`MQVersion`), in which each
//! release follows its snapshot.

/// Number of the snapshot of 4.0.0, from which the list has no gap.
const FIRST: i32 = 212;
/// Number of versions from there, up to 5.9.9.
const COUNT: i32 = 400;

/// Returns the release of a version number: `4.9.7`, or `4.1.0-SNAPSHOT`. Numbers outside of the list are returned as
/// numbers.
#[must_use]
pub fn release_name(version: i32) -> String {
    let Some(place) = version.checked_sub(FIRST).filter(|place| (0..COUNT).contains(place)) else {
        return format!("version {version}");
    };
    let release = place / 2;
    let (major, minor, patch) = (4 + release / 100, release / 10 % 10, release % 10);
    format!("{major}.{minor}.{patch}{}", if place % 2 == 0 { "-SNAPSHOT" } else { "" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn version_numbers_are_those_of_the_java_client() {
        for (version, name) in [
            (62, "version 62"),
            (211, "version 211"),
            (212, "4.0.0-SNAPSHOT"),
            (213, "4.0.0"),
            (232, "4.1.0-SNAPSHOT"),
            (233, "4.1.0"),
            (317, "4.5.2"),
            (399, "4.9.3"),
            (407, "4.9.7"),
            (413, "5.0.0"),
            (479, "5.3.3"),
            (513, "5.5.0"),
            (611, "5.9.9"),
            (612, "version 612"),
            (i32::MIN, "version -2147483648"),
        ] {
            assert_eq!(release_name(version), name);
        }
    }
}
