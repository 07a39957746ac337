/* The road in a browser: text -> token ids -> ONNX graph -> intent and entities, as weebill does it in Python.
 *
 * One module without a build step; onnxruntime-web runs the graph. It trains nothing and asks nobody but the folder it
 * lies in, which `weebill export --format web` wrote. Spans are half-open; inside they count code points, what `inspect`
 * returns counts UTF-16 units, as JavaScript does.
 *
 *   const road = await load("./");
 *   await road.inspect("wake me up at nine");
 */

const RANKING_LENGTH = 10, NUM_NEIGHBOURS = 5;
const SPACE = 32;
const SPLIT_PATTERNS = {  // bpe.py's; \s there is White_Space, and no possessive quantifier of it is ever backtracked
  gpt2: /'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\p{White_Space}\p{L}\p{N}]+|\p{White_Space}+(?!\P{White_Space})|\p{White_Space}+/gu,
  gpt4: /'(?:[sSſdDmMtT]|[lL][lL]|[vV][eE]|[rR][eE])|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\p{White_Space}\p{L}\p{N}]+[\r\n]*|\p{White_Space}*[\r\n]|\p{White_Space}+(?!\P{White_Space})|\p{White_Space}+/gu,
};
const encoder = new TextEncoder();

// -- text -> token ids (normalize.py, bpe.py, offsets.py, tokenizer.py)

/** Return the normalised text. */
export function normalize(text, names) {
  if (names.includes("nfc")) text = text.normalize("NFC");
  if (names.includes("lowercase")) text = text.replaceAll("Σ", "σ").toLowerCase();  // never the final ς
  return text;
}

/** Return, for each character of `normalize(text, names)`, the span of `text` it came from. */
function origins(characters, names) {
  const nfc = names.filter(name => name === "nfc"), spans = [];
  const add = (start, end, text) => { for (const _ of normalize(text, names)) spans.push([start, end]); };
  for (let start = 0, end; start < characters.length; start = end) {
    end = start + 1;
    while (nfc.length && end < characters.length && /[\p{M}\u1160-\u11ff]/u.test(characters[end])) end++;
    const together = characters.slice(start, end).join(""), composed = normalize(together, nfc);
    if (composed !== together) add(start, end, composed);
    else for (let i = start; i < end; i++) add(i, i + 1, characters[i]);
  }
  return spans;
}

/** Byte-level BPE; `settings` is what web_export.py writes of a tokenizer. */
export class Tokenizer {
  constructor(settings) {
    Object.assign(this, settings);  // byte_ids, special_tokens, prefix, suffix, split_pattern, normalizers, trim_offsets
    this.ranks = new Map();
    this.merged = [];
    this.bytes = [];
    this.byte_ids.forEach((id, byte) => { this.bytes[id] = [byte]; });
    for (let i = 0; i < settings.merges.length; i += 3) {
      const [first, second, merged] = settings.merges.slice(i, i + 3);
      this.ranks.set(this.pair(first, second), this.merged.length);
      this.merged.push(merged);
      this.bytes[merged] ??= [...this.bytes[first], ...this.bytes[second]];
    }
    this.specialNames = new Map(Object.entries(this.special_tokens).map(([name, id]) => [id, name]));
    this.remembered = new Map();
  }

  pair(first, second) { return first * this.vocab_size + second; }

  /** Return the tokens of a text between [CLS] and [SEP], their spans, and how many did not fit into `maxLength`. */
  encode(text, maxLength = Infinity) {
    text = text.toWellFormed();  // a lone surrogate counts as U+FFFD
    const all = this.encodeOrdinary(text);
    const kept = all.slice(0, Math.max(0, maxLength - this.prefix.length - this.suffix.length));
    const nowhere = ids => ids.map(() => [0, 0]);
    return {
      ids: [...this.prefix, ...kept, ...this.suffix],
      offsets: [...nowhere(this.prefix), ...this.offsets(text, kept), ...nowhere(this.suffix)],
      dropped: all.length - kept.length,
    };
  }

  encodeOrdinary(text) {
    const ids = [];
    for (const pretoken of normalize(text, this.normalizers).match(SPLIT_PATTERNS[this.split_pattern]) ?? [])
      for (const id of this.merge(pretoken)) ids.push(id);
    return ids;
  }

  merge(pretoken) {
    if (!this.remembered.has(pretoken)) {
      if (this.remembered.size > 10_000) this.remembered.clear();
      this.remembered.set(pretoken, this.applyMerges(Array.from(encoder.encode(pretoken), byte => this.byte_ids[byte])));
    }
    return this.remembered.get(pretoken);
  }

  /** Merge the pair of lowest rank, the leftmost among equals, until none is left; in O(n log n). */
  applyMerges(out) {
    const size = out.length, following = out.map((_, i) => i + 1), previous = out.map((_, i) => i - 1);
    const queue = new Heap();  // of rank * size + place, so that numbers compare as (rank, place)
    const wait = (i, j) => {
      const rank = i >= 0 && j < size ? this.ranks.get(this.pair(out[i], out[j])) : undefined;
      if (rank !== undefined) queue.push(rank * size + i);
    };
    for (let i = 0; i < size; i++) wait(i, i + 1);
    for (let item; (item = queue.pop()) !== undefined;) {
      const i = item % size, rank = (item - i) / size, j = following[i];
      if (out[i] < 0 || j >= size || this.ranks.get(this.pair(out[i], out[j])) !== rank) continue;  // merged elsewhere
      out[i] = this.merged[rank];
      out[j] = -1;
      following[i] = following[j];
      if (following[i] < size) previous[following[i]] = i;
      wait(i, following[i]);
      wait(previous[i], i);
    }
    return out.filter(id => id >= 0);
  }

  /** Return each token's span: all characters it has a byte of, without spaces at its edges. */
  offsets(text, ids) {
    const normal = normalize(text, this.normalizers), starts = [];
    Array.from(normal).forEach((character, i) => {
      for (let size = encoder.encode(character).length; size; size--) starts.push(i);
    });
    let at = 0;
    const found = ids.map(id => {
      const token = this.bytes[id];
      let start = starts[at], end = starts[at + token.length - 1] + 1;
      at += token.length;
      if (this.trim_offsets) {
        const first = token.findIndex(byte => byte !== SPACE), last = token.findLastIndex(byte => byte !== SPACE);
        start = Math.min(start + (first < 0 ? token.length : first), end);
        end = Math.max(start, end - (token.length - 1 - last));
      }
      return [start, end];
    });
    if (normal === text) return found;
    const characters = Array.from(text), origin = [...origins(characters, this.normalizers), [characters.length, characters.length]];
    return found.map(([start, end]) => [origin[start][0], end > start ? origin[end - 1][1] : origin[start][0]]);
  }
}

/** Numbers, the smallest first. */
class Heap {
  items = [];

  push(item) {
    const items = this.items;
    let at = items.length;
    for (let above; at && items[above = (at - 1) >> 1] > item; at = above) items[at] = items[above];
    items[at] = item;
  }

  pop() {
    const items = this.items, smallest = items[0], item = items.pop();
    if (!items.length) return smallest;
    let at = 0;
    for (let below; (below = 2 * at + 1) < items.length; at = below) {
      if (items[below + 1] < items[below]) below++;
      if (items[below] >= item) break;
      items[at] = items[below];
    }
    items[at] = item;
    return smallest;
  }
}

// -- logits -> entities (tags.py, decoding.py, predictor.py)

const isAlphanumeric = character => /[\p{L}\p{N}]/u.test(character);

/** Return whether a character has a combining class: then normalisation moves it before a U+0345, whose is the highest.
 *  It also moves three Tibetan vowels that have none but are made of two that have. */
const isCombining = character => character === "\u0345" || (!"\u0f73\u0f75\u0f81".includes(character)
  && ("\u0345" + character).normalize("NFD") !== "\u0345" + character.normalize("NFD"));

export const isInWord = character => isAlphanumeric(character) || (character >= "\u0300" && isCombining(character));

/** Return whether the boundary before character `at` cuts a word: letters, digits and their marks on both sides. */
export function isInsideWord(characters, at) {
  return at > 0 && at < characters.length && isInWord(characters[at - 1]) && isInWord(characters[at]);
}

/** Return where the marks begin that end a text, its length if none do; the stop of a single letter is no such mark. */
export function endOfWords(characters) {
  let end = characters.length;
  while (end && /[\p{White_Space}\x1c-\x1f]/u.test(characters[end - 1])) end--;
  const marks = end;
  while (end && ".?!。？！…".includes(characters[end - 1])) end--;
  if (end === marks || !end || !isAlphanumeric(characters[end - 1])) return characters.length;
  const single = end === 1 || !isAlphanumeric(characters[end - 2]);
  return single && /\p{L}/u.test(characters[end - 1]) ? characters.length : end;
}

function argmax(values) {
  let best = 0;
  for (let i = 1; i < values.length; i++) if (values[i] > values[best]) best = i;
  return best;
}

export function softmax(logits) {
  const most = Math.max(...logits), powers = Array.from(logits, logit => Math.exp(logit - most));
  const sum = powers.reduce((a, b) => a + b, 0);
  return powers.map(power => power / sum);
}

/** Which BIO tag may follow which: no I-x but after B-x or I-x, no change inside a word, and no B-x right after an entity x
 *  that is not among `touching`; null: all are. */
export class TagGrammar {
  constructor(tags, touching = null) {
    const number = new Map(tags.map((tag, i) => [tag, i]));
    this.tags = tags;
    this.outside = number.get("O");
    this.insides = tags.flatMap((tag, i) => tag.startsWith("I-") ? [i] : []);
    this.begins = this.insides.map(i => number.get("B-" + tags[i].slice(2)));
    this.order = [this.outside, ...this.begins, ...this.insides];  // as Viterbi has them
    this.apart = tags.map(tag => touching !== null && tag.startsWith("B-") && !touching.includes(tag.slice(2)));
    this.beginOf = tags.map(tag => tag.startsWith("I-") ? number.get("B-" + tag.slice(2)) : -1);
  }

  /** Return the tags with the highest sum of logits among legal sequences; a row and a `goesOn` for each token read. */
  decode(rows, goesOn) {
    const best = rows.map(argmax);
    return this.isLegal(best, goesOn) ? best : this.viterbi(rows, goesOn);
  }

  isLegal(tags, goesOn) {
    return tags.every((tag, t) => {
      const before = t ? tags[t - 1] : this.outside, begin = this.beginOf[tag];
      if (begin >= 0) return before === begin || before === tag;
      if (this.apart[tag] && (before === tag || this.beginOf[before] === tag)) return false;
      return !goesOn[t] || (before === tag && !this.tags[tag].startsWith("B-"));
    });
  }

  viterbi(rows, goesOn) {
    const labels = this.begins.length, steps = [];
    let score = this.order.map((_, tag) => tag ? -Infinity : 0);  // before the text nothing can be continued
    rows.forEach((row, t) => {
      const before = argmax(score), begun = [];
      const own = before ? (before - 1) % labels + 1 : 0;  // the label of the best tag, as its begin tag
      const other = argmax(score.map((value, tag) => own && (tag === own || tag === own + labels) ? -Infinity : value));
      const from = tag => own && tag === own && this.apart[this.order[tag]] ? other : before;
      const reached = score.map((_, tag) => {
        if (tag <= labels) return goesOn[t] ? (tag ? -Infinity : score[0]) : score[from(tag)];
        begun[tag] = score[tag - labels] >= score[tag];
        return Math.max(score[tag - labels], score[tag]);
      });
      steps.push({from, begun});
      score = reached.map((value, tag) => value + row[this.order[tag]]);
    });
    const tags = [];
    let tag = argmax(score);
    for (let t = rows.length - 1; t >= 0; t--) {
      tags[t] = this.order[tag];
      if (tag > labels) tag = steps[t].begun[tag] ? tag - labels : tag;
      else tag = goesOn[t] ? 0 : steps[t].from(tag);
    }
    return tags;
  }
}

/** Return entities {start, end, label, score} of a text; `offsets` and `logits`, rows of tag scores, are its tokens'. */
export function decodeEntities(text, offsets, logits, grammar, wholeWords) {
  const characters = Array.from(text), end = wholeWords ? endOfWords(characters) : characters.length;
  const reads = [];  // no special tokens, no later parts of a character, no marks that end a text
  let before = [0, 0];
  offsets.forEach((span, t) => {
    if (span[0] === span[1]) return;
    if (span[0] < end && (span[0] !== before[0] || span[1] !== before[1])) reads.push(t);
    before = span;
  });
  const rows = reads.map(t => logits[t]);
  const tags = grammar.decode(rows, reads.map(t => wholeWords && isInsideWord(characters, offsets[t][0])));
  const found = [];
  tags.forEach((tag, i) => {
    if (tag === grammar.outside) return;
    const [start, stop] = offsets[reads[i]], score = softmax(rows[i])[tag], label = grammar.tags[tag].slice(2);
    if (grammar.beginOf[tag] < 0) found.push({start, end: stop, label, scores: [score]});
    else { found.at(-1).end = stop; found.at(-1).scores.push(score); }
  });
  return found.map(({scores, ...entity}) => ({...entity, score: scores.reduce((a, b) => a + b) / scores.length}));
}

// -- all of it

const differs = ({text}, what, expected, got) => `this browser reads ${JSON.stringify(text)} otherwise than Python: expected `
  + `${what} ${JSON.stringify(expected)}, got ${JSON.stringify(got)}; export again, or use another browser`;

const rounded = (value, digits) => Number(value.toFixed(digits));

/** A model ready to read texts. */
export class Road {
  constructor(model, run, examples) {
    this.model = model;
    this.info = model.info;
    this.tokenizer = new Tokenizer(model.tokenizer);
    this.grammar = model.tags.length ? new TagGrammar(model.tags, model.touching) : null;
    this.run = run;
    this.examples = examples;
    this.last = Promise.resolve();
  }

  /** Return what `POST /inspect` of `weebill serve` does, with UTF-16 offsets; texts are read one after another. */
  inspect(text, signal) {
    const read = this.last.then(async () => {
      signal?.throwIfAborted();
      const answer = this.shown(await this.read(text));
      signal?.throwIfAborted();
      return answer;
    });
    this.last = read.catch(() => {});
    return read;
  }

  /** Return tokens, intent scores and entities of a text, counted in code points; one at a time. */
  async read(text) {
    const most = this.model.max_text_chars, length = Array.from(text).length, started = performance.now();
    if (length > most) throw new Error(`expected texts of at most ${most} characters, got one of ${length}; split it`);
    const encoding = this.tokenizer.encode(text, this.info.max_tokens);
    const {embedding, intents, tags} = await this.run(encoding.ids);
    const scores = intents && softmax(intents);
    const entities = tags && decodeEntities(text, encoding.offsets, tags, this.grammar, this.model.whole_words);
    return {text, ...encoding, embedding, scores, entities, ms: performance.now() - started};
  }

  shown(reading) {
    const {text, ids, offsets, dropped} = reading, at = [0];  // in UTF-16, by code point
    for (const character of text) at.push(at.at(-1) + character.length);
    const tokens = ids.map((id, t) => ({
      id, start: at[offsets[t][0]], end: at[offsets[t][1]], special: this.tokenizer.specialNames.get(id) ?? null,
    }));
    return {
      parse: reading.scores ? this.parsed(reading, at) : null, tokens, dropped_tokens: dropped,
      neighbours: this.nearest(reading.embedding), time_ms: rounded(reading.ms, 2),
    };
  }

  parsed({text, scores, entities, dropped}, at) {
    const order = scores.map((_, i) => i).sort((a, b) => scores[b] - scores[a]);
    const intent_ranking = order.slice(0, RANKING_LENGTH)
      .map(i => ({name: this.info.intents[i], confidence: rounded(scores[i], 6)}));
    return {
      text,
      intent: intent_ranking[0],
      entities: entities.map(({start, end, label, score}) => ({
        start: at[start], end: at[end], value: text.slice(at[start], at[end]), entity: label,
        confidence_entity: rounded(score, 6),
      })),
      intent_ranking,
      dropped_tokens: dropped,
    };
  }

  /** Refuse a browser in which the golden texts are not read as where the model was made. */
  async verify() {
    for (const golden of this.model.golden) {
      const {ids, embedding, scores, entities} = await this.read(golden.text);
      const found = {token_ids: ids};
      if (scores) {
        found.intent = this.info.intents[argmax(scores)];
        found.entities = entities.map(({start, end, label}) => ({start, end, label}));
      }
      const most = Math.max(...golden.embedding.map(Math.abs));
      const apart = Math.max(...golden.embedding.map((value, i) => Math.abs(value - embedding[i]))) / most;
      for (const [what, value] of Object.entries(found))
        if (JSON.stringify(value) !== JSON.stringify(golden[what])) throw new Error(differs(golden, what, golden[what], value));
      if (!(apart <= this.model.tolerance)) throw new Error(differs(golden, "embedding", `at most ${this.model.tolerance} apart`, apart));
    }
  }

  nearest(embedding) {
    const size = embedding.length, length = Math.hypot(...embedding) || 1;
    return this.model.examples
      .map((example, n) => {
        let product = 0;
        for (let i = 0; i < size; i++) product += this.examples[n * size + i] * embedding[i];
        return {...example, similarity: rounded(product / length, 4)};
      })
      .sort((a, b) => b.similarity - a.similarity)
      .slice(0, NUM_NEIGHBOURS);
  }
}

async function fetched(url) {
  const response = await fetch(url);
  if (!response.ok) throw new Error(`expected ${url.pathname}, got status ${response.status}; export the folder again`);
  return response;
}

/** Load a folder that `weebill export --format web` wrote. */
export async function load(folder) {
  const base = new URL(folder, document.baseURI), at = name => new URL(name, base);
  const bytes = async name => (await fetched(at(name))).arrayBuffer();
  const [model, graph, vectors, wasm, ort] = await Promise.all([
    fetched(at("model.json")).then(response => response.json()), bytes("model.onnx"), bytes("examples.f32"),
    bytes("onnxruntime/ort-wasm-simd-threaded.wasm"), import(at("onnxruntime/ort.wasm.bundle.min.js")),
  ]);
  ort.env.wasm.numThreads = 1;  // more need a page that its server isolates from others
  ort.env.wasm.wasmBinary = wasm;  // so that it does not matter which type the server gives the file
  const session = await ort.InferenceSession.create(new Uint8Array(graph), {executionProviders: ["wasm"]});
  const int64 = numbers => new ort.Tensor("int64", BigInt64Array.from(numbers, BigInt), [1, numbers.length]);
  const run = async ids => {
    const output = await session.run({input_ids: int64(ids), attention_mask: int64(ids.map(() => 1))});
    const tags = output.slot_logits?.data, width = model.tags.length;
    return {
      embedding: output.sentence_embedding.data,
      intents: output.intent_logits?.data,
      tags: tags && ids.map((_, t) => tags.subarray(t * width, (t + 1) * width)),
    };
  };
  const road = new Road(model, run, new Float32Array(vectors));
  await road.verify();
  return road;
}
