/** The variables of an original checkpoint that a model folder has no place for, each with the reason. */
import type { ElectraPart } from './tensorflow-names.js'

export interface LeftOut {
  readonly names: readonly string[]
  readonly reason: string
}

const ofDiscriminator = /^(?:electra|discriminator_predictions)\//
const ofGenerator = /^generator(?:_predictions)?\//

function reasonOf(name: string, part: ElectraPart, tasks: number): string {
  if (/\/adam_[mv]$/.test(name) || name === 'global_step')
    return "the optimizer's state, which no model folder holds"
  if (part === 'discriminator' && ofGenerator.test(name))
    return 'the generator; to convert it, ask for the part generator'
  if (part === 'generator' && ofDiscriminator.test(name))
    return 'the discriminator; to convert it, ask for the part discriminator'
  if (/^(?:generator_ltr|generator_rtl|cloze_predictions)\//.test(name))
    return "Electric's one-way generators, for which there is no class"
  if (name.startsWith('task_specific/') && tasks > 1)
    return `heads of ${tasks} tasks; a model folder holds one, so fine-tune again from the converted body`
  if (name.startsWith('task_specific/')) {
    return (
      "a head of other layers than the original's (dense alone, of at most half as many classes as the model is wide, or its " +
      'whole head of question answering); fine-tune again from the converted body'
    )
  }
  return 'no variable of the original ELECTRA code'
}

/** Grouped by reason, in the order of the first of each. */
export function leftOutVariables(
  names: readonly string[],
  taken: ReadonlySet<string>,
  part: ElectraPart,
): LeftOut[] {
  const tasks = new Set(names.map((name) => /^task_specific\/([^/]+)\//.exec(name)?.[1]))
  tasks.delete(undefined)
  const groups = new Map<string, string[]>()
  for (const name of names) {
    if (taken.has(name)) continue
    const reason = reasonOf(name, part, tasks.size)
    const group = groups.get(reason)
    if (group === undefined) groups.set(reason, [name])
    else group.push(name)
  }
  return [...groups].map(([reason, members]) => ({ names: members, reason }))
}
