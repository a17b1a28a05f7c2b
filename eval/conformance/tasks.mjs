// The tasks extension of 2026-07-28 (SEP-2663): the server decides that a call becomes a task, the client
// asks after it with tasks/get, answers its questions with tasks/update, and may cancel it.
import { randomUUID } from 'node:crypto';

export const TASKS = 'io.modelcontextprotocol/tasks';
const NEEDED = { code: -32021, message: 'the client lacks the tasks extension', data: { requiredCapabilities: { extensions: { [TASKS]: {} } } } };
const TERMINAL = ['completed', 'failed', 'cancelled'];

const tasks = new Map();

// A call of a tool that may become a task. Without the extension an optional one runs to its end.
export async function dispatch(call, tool, args) {
  if (!call.tasks) {
    if (tool.task === 'required') throw NEEDED;
    return tool.run(call, args, await tool.before?.(call, args));
  }
  // What is asked before the task begins is asked in rounds, as for any other tool.
  const gathered = await tool.before?.(call, args);
  const now = new Date().toISOString();
  const task = { taskId: randomUUID(), status: 'working', createdAt: now, lastUpdatedAt: now, ttlMs: 60000, pollIntervalMs: 200, answers: {} };
  tasks.set(task.taskId, task);
  work(task, tool, args, gathered);
  return { resultType: 'task', ...outline(task) };
}

async function work(task, tool, args, gathered) {
  const call = { modern: true, input: (requests) => ask(task, requests) };
  try {
    const result = await tool.run(call, args, gathered);
    settle(task, { status: 'completed', result: { resultType: 'complete', ...result } });
  } catch (e) {
    settle(task, { status: 'failed', error: { code: e?.code ?? -32603, message: String(e?.message ?? e) } });
  }
}

function settle(task, change) {
  if (TERMINAL.includes(task.status)) return;
  delete task.inputRequests;
  Object.assign(task, change, { lastUpdatedAt: new Date().toISOString() });
}

// Parks the task until every question is answered.
function ask(task, requests) {
  const ids = Object.fromEntries(Object.keys(requests).map((key) => [randomUUID(), key]));
  settle(task, { status: 'input_required', inputRequests: Object.fromEntries(Object.entries(ids).map(([id, key]) => [id, requests[key]])) });
  return new Promise((resolve) => {
    task.answered = () => {
      if (Object.keys(ids).some((id) => task.answers[id] === undefined)) return;
      settle(task, { status: 'working' });
      resolve(Object.fromEntries(Object.entries(ids).map(([id, key]) => [key, task.answers[id]])));
    };
  });
}

const outline = ({ taskId, status, createdAt, lastUpdatedAt, ttlMs, pollIntervalMs }) => ({ taskId, status, createdAt, lastUpdatedAt, ttlMs, pollIntervalMs });

function detailed(task) {
  const { result, error, inputRequests } = task;
  return { ...outline(task), ...(result ? { result } : {}), ...(error ? { error } : {}), ...(inputRequests ? { inputRequests } : {}) };
}

// tasks/get, tasks/update, tasks/cancel; undefined for any other method.
export function serve(method, params, call) {
  const verb = { 'tasks/get': detailed, 'tasks/update': update, 'tasks/cancel': cancel }[method];
  if (!verb) return undefined;
  if (!call.tasks) throw NEEDED;
  const task = tasks.get(params.taskId);
  if (!task) throw { code: -32602, message: `there is no task ${JSON.stringify(params.taskId)}` };
  return verb(task, params);
}

function update(task, { inputResponses = {} }) {
  for (const [id, answer] of Object.entries(inputResponses)) {
    if (!task.inputRequests?.[id]) continue;
    task.answers[id] = answer;
    delete task.inputRequests[id];
  }
  task.answered?.();
  return {};
}

function cancel(task) {
  settle(task, { status: 'cancelled' });
  return {};
}
