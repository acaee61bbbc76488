// The exercises with a number, answered in the page. Plain JavaScript, no library, no request.
//
// docs/conf.py puts a <div data-qlung-exercise="margin-1"></div> below each question, and what is asked, as JSON, into
// <script id="qlung-exercises">. It comes from notebooks/exercises/answers.py, as lessons.check does; the rules below
// are those of that file, and tests/test_site.py compares the two. They can be called: qlungExercises.fault(name, text).
(() => {
  "use strict";
  const KEY = "qlung-exercises"; // in localStorage: the names of solved exercises
  const { abs, min, max } = Math;

  // ---- Checking ---------------------------------------------------------------------------------------------------

  function digitsOf(number) { // [significant digits as written, decimal exponent]
    const [mantissa, exponent] = abs(number).toExponential(6).split("e");
    return [mantissa.replace(".", "").replace(/0+$/, "").length, +exponent];
  }

  function isRounded(given, wanted, digits, enough) {
    const used = min(max(digits, digitsOf(given)[0]), enough);
    const exponent = min(digitsOf(given)[1], digitsOf(wanted)[1]); // 0.99 is not 1
    return abs(given - wanted) <= 0.5 * 10 ** (exponent + 1 - used) * (1 + 1e-6) + 1e-6;
  }

  // What is wrong with what was typed; empty if it is right.
  function fault(exercise, { replies, enough, near }, typed) {
    const text = typed.trim().replace("−", "-").replace(/^([^.,]*),([^.,]*)$/, "$1.$2"); // 4,63 is 4.63
    if (!text) return replies.empty;
    const given = Number(text), { value, digits, mistakes } = exercise;
    if (!Number.isFinite(given)) return replies["no number"];
    if (isRounded(given, value, digits, enough)) return "";
    const known = mistakes.find(([wrong]) => isRounded(given, wrong, 2, enough));
    if (known) return known[1];
    if (isRounded(-given, value, 2, enough)) return replies.sign;
    const written = max(digitsOf(given)[0], digits), missing = abs(value) - abs(given);
    const unit = 10 ** (digitsOf(value)[1] + 1 - written);
    if (given * value > 0 && missing > 0 && missing < unit) return replies.cut;
    if (abs(given - value) <= near * abs(value)) return replies.near.replace("{digits}", digits);
    return given > value ? replies.large : replies.small;
  }

  // ---- What is solved ---------------------------------------------------------------------------------------------

  let unkept = []; // where the browser keeps nothing
  function solved() {
    try {
      const kept = JSON.parse(localStorage.getItem(KEY));
      return Array.isArray(kept) ? kept : unkept;
    } catch { return unkept; }
  }
  function keep(names) {
    unkept = names;
    try { localStorage.setItem(KEY, JSON.stringify(names)); } catch { /* the count then ends with the page */ }
  }

  // ---- The form ---------------------------------------------------------------------------------------------------

  function element(tag, attributes = {}, ...children) {
    const made = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
    made.append(...children);
    return made;
  }

  function mount(root, all, count) {
    const name = root.dataset.qlungExercise, exercise = all.exercises[name], id = `answer-${name}`;
    if (!exercise || root.firstChild) return;
    const unit = exercise.unit ? ` [${exercise.unit}]` : "";
    const field = element("input", { id, type: "text", inputmode: "text", autocomplete: "off", size: 10,
                                     "aria-describedby": `${id}-said` });
    const hint = element("button", { type: "button" }, "Hint: which step?");
    const answer = element("button", { type: "button" }, "Show the answer");
    const mark = element("span", { class: "is-solved" });
    const said = element("div", { id: `${id}-said`, role: "status" });
    const form = element("form", { class: "qlung-exercise", novalidate: "", "aria-label": `Answer to ${name}` },
      element("div", { class: "asking" }, element("label", { for: id }, `Your number${unit}`), field,
        element("button", { type: "submit", class: "check" }, "Check"), hint, answer, mark), said);
    const say = (words, kind) => {
      said.className = kind;
      said.replaceChildren(...words.map((word) => (word instanceof Node ? word : element("p", {}, word))));
    };
    let stage = 0;
    hint.addEventListener("click", () => {
      say([`${stage ? "The formula" : "The step"}: ${exercise.hints[stage]}`], "hint");
      stage = 1 - stage;
      hint.textContent = stage ? "Hint: the formula" : "Hint: which step?";
    });
    answer.addEventListener("click", () => {
      const number = `${+exercise.value.toPrecision(4)} ${exercise.unit}`.trim();
      say([`The answer is ${number}. ${exercise.why}`,
           element("pre", { tabindex: 0, role: "region", "aria-label": `${name}, the answer in code` },
             element("code", {}, exercise.source.trim()))], "answer");
    });
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      const wrong = fault(exercise, all, field.value);
      field.toggleAttribute("aria-invalid", Boolean(wrong));
      if (!wrong && !solved().includes(name)) keep([...solved(), name]);
      say([wrong ? `Not yet. ${wrong}` : `Right. ${exercise.why}`], wrong ? "wrong" : "right");
      count();
    });
    root.append(form);
    return () => { mark.textContent = solved().includes(name) ? "✓ solved" : ""; };
  }

  const STYLE = `
    .qlung-exercise, .qlung-progress { --ink: #1d4f91; --ok: #1b6b3a; --bad: #9c2f2f; --edge: #6a6a6a }
    html[data-theme="dark"] :is(.qlung-exercise, .qlung-progress) { --ink: #9cc7ff; --ok: #86d9a4; --bad: #ffb1a8;
      --edge: #b0b0b0 }
    .qlung-exercise { border-left: 3px solid var(--ink); padding: 0.4rem 0 0.4rem 0.8rem; margin: 0.8rem 0 }
    .qlung-exercise .asking, .qlung-progress { display: flex; flex-wrap: wrap; gap: 0.5rem 0.7rem; align-items: center }
    .qlung-progress { margin: 0.8rem 0 }
    .qlung-exercise label { font-weight: 600 }
    :is(.qlung-exercise, .qlung-progress) :is(input, button) { font: inherit; color: inherit; background: transparent;
      border: 1px solid var(--edge); border-radius: 4px; padding: 0.2rem 0.7rem; min-height: 2.4rem; max-width: 100% }
    .qlung-exercise input { width: 8rem }
    .qlung-exercise input[aria-invalid] { border: 2px solid var(--bad) }
    :is(.qlung-exercise, .qlung-progress) button { cursor: pointer }
    .qlung-exercise .check { border: 2px solid var(--ink); font-weight: 600 }
    :is(.qlung-exercise, .qlung-progress) :is(input, button):focus-visible { outline: 3px solid var(--ink);
      outline-offset: 2px }
    .qlung-exercise .is-solved { color: var(--ok); font-weight: 600 }
    .qlung-exercise p { margin: 0.5rem 0 0 }
    .qlung-exercise .right { color: var(--ok) } .qlung-exercise .wrong { color: var(--bad) }
    .qlung-exercise pre { margin: 0.5rem 0 0; max-width: 100%; overflow-x: auto }
    @media print { .qlung-exercise, .qlung-progress { display: none } }`;

  function start() {
    const data = document.getElementById("qlung-exercises");
    if (!data) return;
    const all = JSON.parse(data.textContent), names = Object.keys(all.exercises);
    document.head.append(element("style", {}, STYLE));
    const total = element("span", { role: "status" }), again = element("button", { type: "button" }, "Start again");
    const marks = [];
    const count = () => {
      const done = names.filter((name) => solved().includes(name)).length;
      total.textContent = `${done} of ${names.length} solved in this browser`;
      again.hidden = !done;
      marks.forEach((draw) => draw?.());
    };
    document.querySelectorAll("[data-qlung-exercise]").forEach((at) => marks.push(mount(at, all, count)));
    const progress = document.querySelector("[data-qlung-progress]");
    again.addEventListener("click", () => { keep([]); count(); });
    progress?.append(element("div", { class: "qlung-progress" }, total, again));
    count();
    globalThis.qlungExercises = { fault: (name, typed) => fault(all.exercises[name], all, typed) };
  }
  if (document.readyState === "loading") addEventListener("DOMContentLoaded", start);
  else start();
})();
