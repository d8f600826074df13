/**
 * The head that the original code puts on a discriminator when it fine-tunes on question answering, among the variables of a
 * checkpoint: `task_specific/TASK/…`. Its layers have TensorFlow's default names in the order in which the code makes them. No such
 * checkpoint is published, so the names follow from the code alone; a head with other shapes is refused when a model loads it.
 */

/** Scopes below `task_specific/TASK/`, and today's modules. */
const questionAnswering: readonly [scope: string, module: string][] = [
  ['dense', 'start_predictions'],
  ['qa_hidden', 'end_predictions.dense'],
  ['dense_1', 'end_predictions.dense_prediction'],
  ['dense_2', 'answerability_predictions.dense'],
  ['dense_3', 'answerability_predictions.dense_prediction'],
]

/** The class of models with that head. */
export const originalAnswerClass = 'ElectraForJointQuestionAnswering'

/**
 * Today's names of the head's variables, by their own; empty unless exactly one task of the checkpoint has all of them. (Without the
 * answerability classifier, or with independent ends, the original's head is another one.)
 */
export function answerHeadNames(variables: readonly string[]): ReadonlyMap<string, string> {
  const present = new Set(variables)
  const tasks = variables.flatMap(
    (name) => /^task_specific\/([^/]+)\/qa_hidden\/kernel$/.exec(name)?.[1] ?? [],
  )
  const heads = tasks
    .map((task) =>
      questionAnswering.flatMap(([scope, module]): [string, string][] => [
        [`task_specific/${task}/${scope}/kernel`, `${module}.weight`],
        [`task_specific/${task}/${scope}/bias`, `${module}.bias`],
      ]),
    )
    .filter((names) => names.every(([variable]) => present.has(variable)))
  return new Map(heads.length === 1 ? heads[0] : [])
}
