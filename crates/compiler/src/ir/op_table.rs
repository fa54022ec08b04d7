//! The table from which a level's operation enum, its printer and its parser are made.

use super::ValueId;
use std::fmt::Debug;
use std::hash::Hash;

/// What every operation enum can do; implemented by [`op_table!`](crate::op_table) only.
pub trait Operation: Clone + Debug + PartialEq + Eq + Hash {
    /// The word that stands for the operation in the text form.
    fn mnemonic(&self) -> &'static str;
    /// All mnemonics of the level, for error messages.
    fn mnemonics() -> &'static [&'static str];
    /// Operands in order.
    fn operands(&self) -> Vec<ValueId>;
    /// Rewrites every operand.
    fn map_operands(&mut self, map: impl FnMut(ValueId) -> ValueId);
    /// Appends the attributes, `{a=1, b=[2 3]}` with a leading space, nothing if there are none.
    fn write_attributes(&self, out: &mut String);
    /// Builds an operation from its text form; attributes as pairs of name and text.
    fn read(mnemonic: &str, operands: &[ValueId], attributes: &[(&str, &str)]) -> Result<Self, String>;
}

/// Declares the operations of a level: documentation, variant, mnemonic, operands (a last `..rest` takes any
/// number), attributes with types that implement [`Attribute`](super::Attribute).
///
/// ```ignore
/// op_table! {
///     /// Operations of the toy level.
///     pub enum Op {
///         /// Sum.
///         Add "add" (a, b) {},
///         /// Sum of many, each times a constant.
///         Combine "combine" (..terms) { factors: Vec<Number> },
///     }
/// }
/// ```
#[macro_export]
macro_rules! op_table {
    (
        $(#[$enum_doc:meta])*
        pub enum $Op:ident {
            $(
                $(#[$doc:meta])*
                $Variant:ident $mnemonic:literal ( $($operand:ident),* $(; ..$rest:ident)? ) { $($attribute:ident : $Type:ty),* }
            ),* $(,)?
        }
    ) => {
        $(#[$enum_doc])*
        #[derive(Clone, Debug, PartialEq, Eq, Hash)]
        #[allow(missing_docs)] // the fields are operands and attributes; each variant's documentation names them
        pub enum $Op {
            $( $(#[$doc])* $Variant { $($operand: $crate::ir::ValueId,)* $($rest: Vec<$crate::ir::ValueId>,)? $($attribute: $Type,)* }, )*
        }

        #[allow(unused_variables, unused_mut, unused_assignments)] // operations without operands or attributes
        impl $crate::ir::Operation for $Op {
            fn mnemonic(&self) -> &'static str {
                match self { $( $Op::$Variant { .. } => $mnemonic, )* }
            }
            fn mnemonics() -> &'static [&'static str] {
                &[$($mnemonic),*]
            }
            fn operands(&self) -> Vec<$crate::ir::ValueId> {
                match self {
                    $( $Op::$Variant { $($operand,)* $($rest,)? .. } => {
                        let mut all = vec![$(*$operand),*];
                        $( all.extend_from_slice($rest); )?
                        all
                    } )*
                }
            }
            fn map_operands(&mut self, mut map: impl FnMut($crate::ir::ValueId) -> $crate::ir::ValueId) {
                match self {
                    $( $Op::$Variant { $($operand,)* $($rest,)? .. } => {
                        $( *$operand = map(*$operand); )*
                        $( for value in $rest.iter_mut() { *value = map(*value); } )?
                    } )*
                }
            }
            fn write_attributes(&self, out: &mut String) {
                match self {
                    $( $Op::$Variant { $($attribute,)* .. } => {
                        let mut separator = " {";
                        $(
                            out.push_str(separator);
                            out.push_str(concat!(stringify!($attribute), "="));
                            $crate::ir::Attribute::write($attribute, out);
                            separator = ", ";
                        )*
                        if separator == ", " { out.push('}'); }
                    } )*
                }
            }
            fn read(
                mnemonic: &str,
                operands: &[$crate::ir::ValueId],
                attributes: &[(&str, &str)],
            ) -> Result<Self, String> {
                match mnemonic {
                    $( $mnemonic => {
                        let mut names: Vec<&str> = vec![$(stringify!($attribute)),*];
                        if let Some((unknown, _)) = attributes.iter().find(|(name, _)| !names.contains(name)) {
                            return Err(format!("{mnemonic} has no attribute `{unknown}`; it has [{}]", names.join(", ")));
                        }
                        let mut values = operands.iter().copied();
                        $( let $operand = values.next().ok_or_else(|| format!("{mnemonic} lacks its operand `{}`", stringify!($operand)))?; )*
                        $( let $rest: Vec<$crate::ir::ValueId> = values.by_ref().collect(); )?
                        if values.next().is_some() {
                            return Err(format!("{mnemonic} has too many operands"));
                        }
                        $( let $attribute = {
                            let text = attributes.iter().find(|(name, _)| *name == stringify!($attribute));
                            let (_, text) = text.ok_or_else(|| format!("{mnemonic} lacks its attribute `{}`", stringify!($attribute)))?;
                            <$Type as $crate::ir::Attribute>::read(text)?
                        }; )*
                        Ok($Op::$Variant { $($operand,)* $($rest,)? $($attribute,)* })
                    } )*
                    _ => Err(format!("no operation `{mnemonic}` on this level; it has {}", Self::mnemonics().join(", "))),
                }
            }
        }
    };
}
