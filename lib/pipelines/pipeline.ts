/** `pipeline(task, model)`: text in, answers out. */
import type { FromPretrainedOptions, ModelOptions } from '../electra/index.js'
import { type HubOptions, resolveModelFolder } from '../formats/hub.js'
import { readModelFolder } from '../formats/model-folder.js'
import { setThreads, VoltaicError } from '../runtime/index.js'
import { loadTokenizer } from '../text/index.js'
import { checkOptionNames, wholeOption } from './options.js'
import { Session } from './session.js'
import {
  type AnyPipeline,
  type Architecture,
  architectures,
  type PipelineAliases,
  type Pipelines,
  type PipelineTask,
  taskOfName,
  tasks,
} from './tasks.js'

export interface PipelineOptions extends HubOptions, Pick<ModelOptions, 'precision'> {
  /** Default 'auto'. */
  readonly device?: FromPretrainedOptions['device']
  /** CPU threads, of the whole process; never changes a result. Default: all that the process may use. */
  readonly threads?: number | undefined
  /** Tokens of a forward pass at most, over all calls that go together. Default 4096; 32768 on CUDA. */
  readonly batchTokens?: number | undefined
}

/**
 * The name of the class of a folder's model. Where config.json says none, as old files do, the first that is for the task: whether the
 * weights fit it, loading will show.
 */
function architectureOf(folder: string, asked: PipelineTask | null): string {
  using source = readModelFolder(folder)
  const listed = source.config.architectures
  const name = listed.find((architecture) => Object.hasOwn(architectures, architecture))
  if (name !== undefined) return name
  if (listed.length === 0 && asked !== null) return tasks[asked].models[0] ?? 'ElectraModel'
  throw new VoltaicError(
    'ERR_CONFIG',
    `${folder}: config.json says ${listed.length === 0 ? 'no architecture' : listed.join(', ')}; expected one of ` +
      `${Object.keys(architectures).join(', ')}. Write the right one under "architectures"`,
  )
}

const taskOfArchitecture = (name: string): PipelineTask => (architectures[name] as Architecture).task

/** The task that a model folder, or a model on the hub, is for. @throws as `pipeline` does */
export async function pipelineTaskOf(nameOrFolder: string, options: HubOptions = {}): Promise<PipelineTask> {
  return taskOfArchitecture(architectureOf(await resolveModelFolder(nameOrFolder, ['model'], options), null))
}

const optionNames = [
  ...['device', 'precision', 'threads', 'batchTokens'],
  ...['revision', 'cacheDir', 'localFilesOnly', 'onDownload'],
]

async function open(
  task: string | null,
  nameOrFolder: string,
  options: PipelineOptions,
): Promise<AnyPipeline> {
  const asked = task === null ? null : taskOfName(task)
  checkOptionNames('pipeline', options, optionNames)
  const { device = 'auto', precision, threads, batchTokens } = options
  wholeOption('pipeline', 'batchTokens', batchTokens, 1, 1)
  if (threads !== undefined) setThreads(threads)
  const folder = await resolveModelFolder(nameOrFolder, ['model', 'tokenizer'], options)
  const name = architectureOf(folder, asked)
  const chosen = asked ?? taskOfArchitecture(name)
  const { models, create, remedy } = tasks[chosen]
  if (models.length > 0 && !models.includes(name)) {
    throw new VoltaicError(
      'ERR_CONFIG',
      `${chosen}: ${folder} holds ${name}, expected ${models.join(' or ')}; ${remedy}`,
    )
  }
  const tokenizer = await loadTokenizer(folder)
  const Class = (architectures[name] as Architecture).model
  const model = await Class.fromPretrained(folder, { device, precision })
  try {
    const { missing } = model.loadReport
    if (missing.length > 0) {
      throw new VoltaicError(
        'ERR_FORMAT',
        `${folder}: the weights lack ${missing.slice(0, 3).join(', ')}, which ${name} has; it was not trained yet`,
      )
    }
    if (tokenizer.vocabularySize > model.config.vocabSize) {
      throw new VoltaicError(
        'ERR_CONFIG',
        `${folder}: the tokenizer has ${tokenizer.vocabularySize} tokens and the model ${model.config.vocabSize}; ` +
          'use the tokenizer that the model was trained with',
      )
    }
    const budget = batchTokens ?? (model.device.kind === 'cuda' ? 32768 : 4096)
    return create(new Session(chosen, model, tokenizer, budget) as Session<never>)
  } catch (error) {
    model.dispose()
    throw error
  }
}

/**
 * Opens a pipeline over a model folder or a name on the hub. Its calls take a text or a list of texts; calls that come while others
 * run share forward passes with each other. `dispose` frees the model.
 * @throws ERR_ARGUMENT for an unknown task; ERR_CONFIG when the model has no head for the task; ERR_IO, ERR_FORMAT as `fromPretrained`
 */
export function pipeline<Task extends PipelineTask>(
  task: Task,
  model: string,
  options?: PipelineOptions,
): Promise<Pipelines[Task]>
export function pipeline<Name extends keyof PipelineAliases>(
  task: Name,
  model: string,
  options?: PipelineOptions,
): Promise<Pipelines[PipelineAliases[Name]]>
/** The task is the one that the model is for. */
export function pipeline(model: string, options?: PipelineOptions): Promise<AnyPipeline>
export async function pipeline(
  first: string,
  second?: string | PipelineOptions,
  third?: PipelineOptions,
): Promise<AnyPipeline> {
  return typeof second === 'string' ? open(first, second, third ?? {}) : open(null, first, second ?? {})
}
