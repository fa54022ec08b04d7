//! The frame of a pass that replaces operations one by one.

use super::{Builder, Dialect, Module, Operation, ValueId};

/// Rebuilds every function, giving each operation (its operands already rewritten) to `replace`, which either adds
/// operations to the builder and returns the values that stand for the results, or returns `None` to keep it.
pub fn rewrite<D: Dialect>(
    module: &mut Module<D>,
    mut replace: impl FnMut(&mut Builder<D>, &Module<D>, &D::Op) -> Option<Vec<ValueId>>,
) {
    let functions = std::mem::take(&mut module.functions);
    for function in functions {
        let mut builder = Builder::new(function.name.clone(), function.param_types().to_vec());
        let mut new: Vec<ValueId> = function.params().collect();
        for node in function.nodes {
            builder.stage = node.stage;
            let mut op = node.op;
            op.map_operands(|v| new[v.index()]);
            match replace(&mut builder, module, &op) {
                Some(values) => {
                    assert_eq!(values.len(), node.results.len(), "a replacement has as many results");
                    new.extend(values);
                }
                None => {
                    let results = builder.try_push(module, op);
                    let results = results.unwrap_or_else(|m| panic!("{} after rewriting: {m}", D::NAME));
                    new.extend(results.map(ValueId));
                }
            }
        }
        let results = function.results.iter().map(|v| new[v.index()]).collect();
        module.functions.push(builder.finish(results));
    }
}
