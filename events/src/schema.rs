//! The macro that declares the events of a stream kind: the enum, the wire names, the schema
//! versions, and the conversion to JSON and back.

/// Declares the events of a stream kind.
///
/// `Variant(Struct) = "WireName" v 1` makes a variant that holds a serde struct and is written
/// under that wire name and schema version.
macro_rules! stream_events {
    ($($(#[$vdoc:meta])* $variant:ident($body:ty) = $name:literal v $schema:literal;)+) => {
        /// An event of this stream kind.
        #[derive(Clone, Debug, PartialEq)]
        pub enum Event {
            $($(#[$vdoc])* $variant($body),)+
        }

        impl Event {
            /// The wire names of all events of this kind, with their current schema versions.
            pub const TYPES: &'static [(&'static str, u16)] = &[$(($name, $schema)),+];

            /// The wire name (`ce_type`).
            pub fn type_name(&self) -> &'static str {
                match self { $(Self::$variant(_) => $name,)+ }
            }

            /// The schema version that this program writes.
            pub fn schema(&self) -> u16 {
                match self { $(Self::$variant(_) => $schema,)+ }
            }

            /// Name, current schema version and JSON Schema of each event.
            pub(crate) fn json_schemas() -> Vec<(&'static str, u16, serde_json::Value)> {
                vec![$(($name, $schema, crate::json_schema::of::<$body>($name))),+]
            }

            pub(crate) fn write_json(&self, body: &mut Vec<u8>) -> serde_json::Result<()> {
                match self { $(Self::$variant(event) => serde_json::to_writer(body, event),)+ }
            }

            /// Decodes JSON of the current schema version; `None` when no event has this name.
            pub(crate) fn read_json(type_name: &str, body: &[u8]) -> Option<serde_json::Result<Self>> {
                match type_name {
                    $($name => Some(serde_json::from_slice(body).map(Self::$variant)),)+
                    _ => None,
                }
            }
        }

        $(impl From<$body> for Event {
            fn from(event: $body) -> Self { Self::$variant(event) }
        })+
    };
}

pub(crate) use stream_events;
