// Ask NextBest what to do next for a customer, and tell it how that went.
//
//     node journey.js 127.0.0.1:50051 c-17 '{"loyalty": "new", ...}' [kind of event]
//
// The proto files are loaded as they are, from protos/ of this repository or from the folder in NEXTBEST_PROTOS.

import { randomUUID } from 'node:crypto';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import grpc from '@grpc/grpc-js';
import protoLoader from '@grpc/proto-loader';

const [target, customerId, context, kind = 'click'] = process.argv.slice(2);
if (!context) {
  console.error('usage: node journey.js HOST:PORT CUSTOMER CONTEXT_AS_JSON [KIND]');
  process.exit(2);
}

const protos = process.env.NEXTBEST_PROTOS ?? fileURLToPath(new URL('../../../protos', import.meta.url));
const definition = protoLoader.loadSync(
  ['nextbest/v1/decision_service.proto', 'nextbest/v1/journey_service.proto'],
  { includeDirs: [protos], longs: Number, oneofs: true },
);
const { nextbest } = grpc.loadPackageDefinition(definition);
const credentials = grpc.credentials.createInsecure();
const decisions = new nextbest.v1.DecisionService(target, credentials);
const journeys = new nextbest.v1.JourneyService(target, credentials);

// One unary call as a promise, with a deadline.
function call(client, method, request) {
  return promisify(client[method].bind(client))(request, { deadline: Date.now() + 5000 });
}

// A JSON value as nextbest.v1.Value; null and undefined mean: missing.
function value(found) {
  if (typeof found === 'number') return { number: found };
  if (typeof found === 'boolean') return { flag: found };
  return typeof found === 'string' ? { category: found } : {};
}

function timestamp(milliseconds) {
  return { seconds: Math.floor(milliseconds / 1000), nanos: (milliseconds % 1000) * 1e6 };
}

function named(action) {
  return action ? `${action.channel}/${action.content}/${action.timing}` : 'hold';
}

const request = {
  requestId: randomUUID(),
  customerId,
  context: Object.fromEntries(Object.entries(JSON.parse(context)).map(([name, found]) => [name, value(found)])),
  explain: true,
};

try {
  const { decision, explanation } = await call(decisions, 'decide', request);
  const at = decision.sendAt ? ` at ${new Date(decision.sendAt.seconds * 1000).toISOString()}` : '';
  console.log(`decided: ${named(decision.action)}${at} (probability ${decision.propensity.toFixed(3)})`);
  for (const { action, reasons } of explanation.removed.slice(0, 3)) {
    console.log(`not ${named(action)}: ${reasons.join(', ')}`);
  }

  // After a deadline or a lost connection, ask again with the same requestId: the answer is the same.
  const again = await call(decisions, 'decide', request);
  if (again.decision.decisionId !== decision.decisionId) throw new Error('a retry got another decision');

  const event = {
    eventId: randomUUID(),
    customerId,
    occurredAt: timestamp(Date.now()),
    kind,
    decisionId: decision.action ? decision.decisionId : '', // nobody answers to what was not sent
  };
  const receipt = await call(journeys, 'track', { event });
  console.log(`tracked: ${receipt.eventId}`);
} catch (error) {
  // INVALID_ARGUMENT names every bad field, here in its text, and in google.rpc.BadRequest among its details.
  console.error(`${grpc.status[error.code] ?? 'ERROR'}: ${error.details ?? error.message}`);
  process.exitCode = 2;
} finally {
  decisions.close();
  journeys.close();
}
