// The playground: two boards that answer while you drag. Plain JavaScript, no library, no request.
//
//   <div data-qlung-board="margins"></div>      force, margins and boundaries of the QLung loss (notebook 03)
//   <div data-qlung-board="quality"></div>      a spectrum and its audio-quality score (notebook 02)
//
// With the attribute data-address the state is kept in the address after #, so that a page can be linked to as it is.
// The formulas are those of qlung/margins/logits.py, qlung/margins/losses.py and qlung/quality/aqs.py, in float64;
// tests/test_site.py compares the numbers. They can be called: qlungPlayground.margins.numbers({...}).
(() => {
  "use strict";
  const { PI, sin, cos, exp, log, log10, log2, sqrt, min, max, abs, round } = Math;
  const clamp = (x, low, high) => min(max(x, low), high);
  const degrees = (x) => (180 / PI) * x;

  // ---- Numbers of the margins board -------------------------------------------------------------------------------

  const CLASSES = ["common", "rare"]; // prototypes at 0 and 90 degrees
  const GAMMA = 0.5, KAPPA = 0.5; // the paper's
  const ANGLES = Array.from({ length: 181 }, (_, i) => 1e-3 + (i * (PI / 2 - 1e-3)) / 180); // [rad]

  // cos(theta + m) and minus its slope; beyond pi it goes on as a parabola (logits.py: _cos_of_sum).
  function target(theta, m) {
    const angle = theta + m, inside = clamp(angle, 0, PI), excess = angle - inside;
    return [cos(inside) * (1 + (excess * excess) / 2), excess ? abs(excess) : sin(angle)];
  }

  // dL/dtheta [1/rad] of cross-entropy at a scale, for a clip between its prototype and the other one, 90 degrees away.
  function force(theta, m, scale) {
    const [value, fall] = target(theta, m);
    const others = 1 / (1 + exp(scale * (value - sin(theta)))); // probability of the other class
    return scale * others * (fall + cos(theta));
  }

  // losses.py: class_margin of the counts [imbalance, 1]
  function classMargin(imbalance, targetMargin) {
    return [imbalance, 1].map((n) => (-targetMargin / log(2)) * log(n / (imbalance + 1)));
  }

  // {common: {byClass, byQuality, margin, last, cls, dfam, total}, rare: ...}; curves over ANGLES [1/rad]
  function marginNumbers(state) {
    const arcface = state.loss === "arcface", byClass = classMargin(state.imbalance, state.target);
    return Object.fromEntries(CLASSES.map((name, k) => {
      const ofClass = arcface ? state.fixed : (1 - GAMMA) * byClass[k];
      const byQuality = arcface ? 0 : GAMMA * KAPPA * state.aqs;
      const margin = ofClass + byQuality, weight = arcface ? 1 : state.lam;
      const cls = ANGLES.map((theta) => (arcface ? 0 : force(theta, 0, state.scale_cls)));
      const dfam = ANGLES.map((theta) => weight * force(theta, margin, state.scale_margin));
      const total = cls.map((value, i) => value + dfam[i]);
      const moved = ANGLES.find((_, i) => dfam[i] > 0.5 * weight * state.scale_margin);
      const last = max(0, PI / 4 - margin / 2);
      return [name, { byClass: ofClass, byQuality, margin, last, cls, dfam, total, moved }];
    }));
  }

  // ---- Numbers of the quality board -------------------------------------------------------------------------------

  const RATE = 16000, N_FFT = 512, BINS = N_FFT / 2 + 1, BANDS = 128;
  const HERTZ = Array.from({ length: BINS }, (_, i) => (i * RATE) / N_FFT);
  const NOISE_BELOW = 2000; // Hz, as in qlung/audio/degrade.py

  // Kaldi's triangular mel filters between 20 Hz and 8 kHz (frontends.py: mel_bank): per band [bin, weight] pairs
  const BANK = (() => {
    const mel = (hertz) => 1127 * log(1 + hertz / 700), low = mel(20), step = (mel(RATE / 2) - low) / (BANDS + 1);
    return Array.from({ length: BANDS }, (_, band) => HERTZ.slice(0, -1).flatMap((hertz, bin) => {
      const at = (mel(hertz) - low) / step - band, weight = min(at, 2 - at);
      return weight > 0 ? [[bin, weight]] : [];
    }));
  })();

  const bump = (f, centre, width) => exp(-(((f - centre) / width) ** 2) / 2);
  const SOUNDS = { // power per bin of a sound without noise, any unit
    breath: (f) => 1 / (1 + (f / 200) ** 6),
    wheeze: (f) => 0.05 / (1 + (f / 200) ** 6) + bump(f, 400, 25) + 0.2 * bump(f, 800, 25),
    tone: (f) => bump(f, 400, 8),
    white: () => 1,
  };
  const LEVEL = -30; // dBFS of the sound before gain
  const FLOOR = -80; // dB of the device's own hiss over the whole band, relative to the sound

  const sum = (values) => values.reduce((a, b) => a + b, 0);
  const scaled = (values, total) => { const by = total / sum(values); return values.map((x) => x * by); };

  // Mean power per bin of the recording: sound + hiss + noise below 2 kHz, low-pass filter, gain. Their sum is RMS^2.
  function spectrum(state) {
    const power = 10 ** (LEVEL / 10), noise = HERTZ.map((f) => (f <= NOISE_BELOW ? 1 : 0));
    const parts = [scaled(HERTZ.map(SOUNDS[state.sound]), power), scaled(noise, power * 10 ** (-state.snr / 10)),
                   scaled(HERTZ.map(() => 1), power * 10 ** (FLOOR / 10))];
    const gain = 10 ** (state.gain / 10);
    return HERTZ.map((f, i) => (f > state.lowpass ? 0 : gain * (parts[0][i] + parts[1][i] + parts[2][i])));
  }

  // What the entropy is taken of (aqs.py: spectral_entropy with scope="mean"): decibels of 128 mel bands, or power.
  function density(power, spectrumName) {
    if (spectrumName === "power") return power;
    const decibels = BANK.map((band) => 10 * log10(max(1e-20, sum(band.map(([bin, weight]) => weight * power[bin])))));
    const top = max(...decibels);
    return decibels.map((value) => max(0, value - top + 80));
  }

  function entropy(values) { // divided by its maximum: 0 to 1
    const total = sum(values);
    return -sum(values.map((x) => (x > 0 ? (x / total) * log(x / total) : 0))) / log(values.length);
  }

  function qualityNumbers(state) {
    const power = spectrum(state), values = density(power, state.spectrum), rms = sqrt(sum(power)), H = entropy(values);
    const aqs = clamp(1 - 0.7 * H + 0.3 * rms, 0, 1);
    return { power, density: values, H, rms, dbfs: 20 * log10(rms), aqs, qualityMargin: KAPPA * aqs,
             margin: GAMMA * KAPPA * aqs + (1 - GAMMA) * 0.2 }; // the class part of balanced data
  }

  // ---- Drawing ----------------------------------------------------------------------------------------------------

  const line = (points, attributes) =>
    `<path d="M${points.map(([x, y]) => `${x.toFixed(1)} ${y.toFixed(1)}`).join("L")}" fill="none" ${attributes}/>`;
  const text = (x, y, words, attributes = "") => `<text x="${x}" y="${y}" ${attributes}>${words}</text>`;
  const rect = (x, y, width, height, attributes) =>
    `<rect x="${x}" y="${y}" width="${max(0, width).toFixed(1)}" height="${height}" ${attributes}/>`;
  const BOX = { left: 46, right: 330, top: 16, bottom: 222 }; // of a panel of 340 x 270

  function axes(xs, ys, xTicks, yTicks, xLabel, yLabel) {
    const { left, right, top, bottom } = BOX;
    return yTicks.map((y) => line([[left, ys(y)], [right, ys(y)]], 'class="grid"')
        + text(left - 6, ys(y) + 4, y, 'text-anchor="end"')).join("")
      + xTicks.map((x) => line([[xs(x), bottom], [xs(x), bottom + 4]], 'class="axis"')
        + text(xs(x), bottom + 17, x >= 1000 ? `${x / 1000}k` : x, 'text-anchor="middle"')).join("")
      + line([[left, top], [left, bottom], [right, bottom]], 'class="axis"')
      + text((left + right) / 2, bottom + 36, xLabel, 'text-anchor="middle"')
      + text(left - 44, top - 11, yLabel);
  }
  const linear = (from, to, low, high) => (x) => low + ((x - from) / (to - from)) * (high - low);
  function nice(largest) { // three or four round ticks up to the largest value
    const step = [1, 2, 5].map((k) => k * 10 ** Math.floor(log10(largest / 2))).filter((s) => largest / s <= 5)[0];
    return Array.from({ length: Math.ceil(largest / step) + 1 }, (_, i) => +(i * step).toPrecision(3));
  }

  function drawForce(numbers) {
    const ticks = nice(max(...CLASSES.flatMap((name) => numbers[name].total)) || 1);
    const xs = linear(0, 90, BOX.left, BOX.right), ys = linear(0, ticks.at(-1), BOX.bottom, BOX.top);
    const curve = (values, attributes) => line(values.map((y, i) => [xs(degrees(ANGLES[i])), ys(y)]), attributes);
    return axes(xs, ys, [0, 15, 30, 45, 60, 75, 90], ticks, "angle to the target prototype [°]", "force [1/rad]")
      + curve(numbers.common.cls, 'class="without"')
      + CLASSES.map((name) => curve(numbers[name].dfam, `class="${name} term"`)).join("")
      + CLASSES.map((name) => curve(numbers[name].total, `class="${name}"`)).join("");
  }

  function drawMargins(numbers) {
    const ticks = nice(max(0.5, ...CLASSES.map((name) => numbers[name].margin)));
    const xs = linear(0, ticks.at(-1), BOX.left, BOX.right);
    const bars = CLASSES.map((name, k) => {
      const { byClass, byQuality, margin } = numbers[name], y = 50 + 90 * k, middle = xs(byClass);
      return text(BOX.left + 2, y - 8, `${name}: ${margin.toFixed(3)} rad = ${degrees(margin).toFixed(1)}°`)
        + rect(BOX.left, y, middle - BOX.left, 40, `class="${name} bar"`)
        + rect(middle, y, xs(margin) - middle, 40, `class="${name} bar pale"`);
    });
    return axes(xs, () => 0, ticks, [], "margin [rad]; dark: class, pale: quality", "") + bars.join("");
  }

  function drawBoundaries(numbers) {
    const x0 = 70, y0 = 230, r = 196, at = (angle, radius = r) => [x0 + radius * cos(angle), y0 - radius * sin(angle)];
    const arc = (from, to, attributes) =>
      line(Array.from({ length: 46 }, (_, i) => at(from + ((to - from) * i) / 45)), attributes);
    const { common, rare } = numbers;
    return arc(0, PI / 2, 'class="gap"')
      + (common.last > 0 ? arc(0, common.last, 'class="common arc"') : "")
      + (rare.last > 0 ? arc(PI / 2 - rare.last, PI / 2, 'class="rare arc"') : "")
      + line([[x0, y0], at(PI / 4, 215)], 'class="without"') + text(...at(PI / 4, 222), "45°, inference")
      + line([[x0, y0], at(0)], 'class="common"') + line([[x0, y0], at(PI / 2)], 'class="rare"')
      + text(x0 + r - 20, y0 + 20, "common, 0°", 'text-anchor="middle"')
      + text(x0 + 12, y0 - r - 10, "rare, 90°", 'text-anchor="middle"');
  }

  const SPECTRUM_X = (f) => linear(log2(62.5), log2(8000), BOX.left, BOX.right)(log2(f));
  function drawSpectrum(numbers, state) {
    const xs = SPECTRUM_X, ys = linear(-120, 0, BOX.bottom, BOX.top);
    const shown = HERTZ.map((f, i) => [f, clamp(10 * log10(max(1e-30, numbers.power[i])), -120, 0)]).slice(2);
    const cut = xs(state.lowpass);
    return axes(xs, ys, [125, 250, 500, 1000, 2000, 4000, 8000], [-120, -80, -40, 0], "frequency [Hz]", "dB per bin")
      + rect(cut, BOX.top, BOX.right - cut, BOX.bottom - BOX.top, 'class="cut"')
      + line(shown.map(([f, level]) => [xs(f), ys(level)]), 'class="common"')
      + line([[cut, BOX.top], [cut, BOX.bottom]], 'class="rare"')
      + text(min(cut, BOX.right - 60), BOX.top + 12, "low-pass ↔", 'text-anchor="middle" class="strong"');
  }

  function drawDensity(numbers, state) {
    const values = numbers.density, power = state.spectrum === "power", top = max(...values);
    const xs = linear(0, values.length, BOX.left, BOX.right);
    const ys = linear(0, power ? 1 : 80, BOX.bottom, BOX.top), by = power ? 1 / top : 1;
    const steps = values.flatMap((y, i) => [[xs(i), ys(y * by)], [xs(i + 1), ys(y * by)]]);
    const [label, ticks] = power ? ["FFT bin", [0, 64, 128, 192, 256]] : ["mel band", [0, 32, 64, 96, 128]];
    const [yTicks, unit] = power ? [[0, 0.5, 1], "power / largest"] : [[0, 40, 80], "dB over the limit"];
    return axes(xs, ys, ticks, yTicks, label, unit)
      + `<path d="M${BOX.left} ${BOX.bottom}L${steps.map(([x, y]) => `${x.toFixed(1)} ${y.toFixed(1)}`).join("L")}`
      + `L${BOX.right} ${BOX.bottom}Z" class="common bar"/>`;
  }

  function drawScores(numbers) {
    const rows = [["H, entropy", numbers.H, "rare"], ["R, RMS (linear)", numbers.rms, "rare"],
                  ["AQS", numbers.aqs, "common"], ["margin of QLung [rad]", numbers.margin, "common"]];
    const xs = linear(0, 1, BOX.left, BOX.right);
    return axes(xs, () => 0, [0, 0.2, 0.4, 0.6, 0.8, 1], [], "AQS = clip(1 − 0.7 H + 0.3 R, 0, 1)", "")
      + rows.map(([name, value, style], k) => text(BOX.left + 2, 32 + 50 * k, `${name}: ${value.toFixed(3)}`)
        + rect(BOX.left, 38 + 50 * k, xs(clamp(value, 0, 1)) - BOX.left, 20, `class="${style} bar"`)).join("");
  }

  // ---- The two boards ---------------------------------------------------------------------------------------------

  const PAPER = { loss: "qlung", scale_cls: 37, scale_margin: 15, lam: 0.4, target: 0.2, fixed: 0.5, imbalance: 6,
                  aqs: 0.5 };
  const CLEAN = { sound: "breath", spectrum: "logmel", snr: 40, lowpass: 8000, gain: 0 };
  const QLUNG_ONLY = ["scale_cls", "lam", "target", "imbalance", "aqs"];
  const angle = (x) => (x === undefined ? "none" : `${degrees(x).toFixed(1)}°`);

  const BOARDS = {
    margins: {
      title: "Margins", start: PAPER, numbers: marginNumbers,
      presets: { "paper (37 / 15 / 0.2)": PAPER,
                 "ArcFace (64 / 0.5)": { ...PAPER, loss: "arcface", scale_margin: 64, fixed: 0.5 },
                 "balanced classes": { ...PAPER, imbalance: 1 },
                 "poor audio": { ...PAPER, aqs: 0 } },
      controls: [
        { name: "loss", label: "loss", options: { qlung: "QLung: two terms",
                                                  arcface: "ArcFace: one term, one margin" } },
        { name: "scale_cls", label: "scale s<sub>a</sub> of the classifier", low: 1, high: 100, log: true },
        { name: "scale_margin", label: "scale s<sub>d</sub> of the margin loss", low: 1, high: 100, log: true },
        { name: "lam", label: "weight λ of the margin loss", low: 0, high: 2, step: 0.05 },
        { name: "target", label: "target margin [rad]", low: 0, high: 0.6, step: 0.01 },
        { name: "imbalance", label: "imbalance, common : rare", low: 1, high: 100, log: true },
        { name: "aqs", label: "quality, AQS", low: 0, high: 1, step: 0.01 },
        { name: "fixed", label: "fixed margin [rad], ArcFace", low: 0, high: 1.5, step: 0.01 },
      ],
      used: (state, name) => (state.loss === "arcface" ? !QLUNG_ONLY.includes(name) : name !== "fixed"),
      panels: { "Force: how strongly training turns a clip": drawForce, "Margin per class": drawMargins,
                "Boundaries in training": drawBoundaries },
      key: [["common", "common class, whole loss"], ["rare", "rare class, whole loss"],
            ["common term", "its margin loss alone"], ["without", "without a margin"], ["gap", "no clip satisfies it"]],
      table: (numbers) => [
        ["class", "class part [rad]", "quality part [rad]", "margin [rad]", "satisfied up to", "moved from"],
        ...CLASSES.map((name) => {
          const { byClass, byQuality, margin, last, moved } = numbers[name];
          return [name, byClass.toFixed(4), byQuality.toFixed(4), margin.toFixed(4), angle(last), angle(moved)];
        })],
      note: "Satisfied up to: the largest angle at which the margin is met. Moved from: the first angle at which the "
        + "margin loss pulls with half its scale.",
    },
    quality: {
      title: "Audio quality", start: CLEAN, numbers: qualityNumbers, drag: true,
      presets: { "clean breath": CLEAN, "noisy, 0 dB": { ...CLEAN, snr: 0 },
                 "noisy, then low-pass 500 Hz": { ...CLEAN, snr: 0, lowpass: 500 },
                 "only louder": { ...CLEAN, gain: 24 }, "wheeze": { ...CLEAN, sound: "wheeze" } },
      controls: [
        { name: "sound", label: "sound", options: { breath: "breath", wheeze: "wheeze", tone: "pure tone",
                                                    white: "white noise" } },
        { name: "spectrum", label: "entropy of", options: { logmel: "log-mel bands (the book's choice)",
                                                            power: "power spectrum" } },
        { name: "snr", label: "signal-to-noise ratio [dB]", low: -20, high: 60, step: 1 },
        { name: "lowpass", label: "low-pass filter [Hz]", low: 125, high: 8000, log: true },
        { name: "gain", label: "gain [dB]", low: -30, high: 30, step: 1 },
      ],
      used: () => true,
      panels: { "Spectrum: drag the red line": drawSpectrum, "What the entropy is taken of": drawDensity,
                "Entropy, level, AQS and margin": drawScores },
      key: [],
      table: (numbers) => [["H", "R [dBFS]", "R", "AQS", "m<sub>q</sub> = κ AQS [rad]", "m<sub>d</sub> [rad]"],
        [numbers.H.toFixed(4), numbers.dbfs.toFixed(2), numbers.rms.toFixed(4), numbers.aqs.toFixed(4),
         numbers.qualityMargin.toFixed(4), numbers.margin.toFixed(4)]],
      note: "The margin is that of a class of balanced data (m<sub>c</sub> = 0.2 rad). The filter takes sound "
        + "away, and the AQS rises; gain takes nothing away, and it changes, too.",
    },
  };

  // ---- Controls, drawing and address ------------------------------------------------------------------------------

  const STYLE = `
    .qlung-board { --common: #0072b2; --rare: #b3367b; --soft: #6a6a6a; --line: #d0d0d0; font-size: 0.9rem;
      line-height: 1.4; margin: 1rem 0; max-width: 72rem; color: inherit }
    html[data-theme="dark"] .qlung-board, body[data-jp-theme-light="false"] .qlung-board {
      --common: #56b4e9; --rare: #e58bbf; --soft: #b0b0b0; --line: #4a4a4a }
    .qlung-board .buttons, .qlung-board .controls { display: flex; flex-wrap: wrap; gap: 0.5rem 1rem }
    .qlung-board .panels { display: grid; gap: 1rem;
      grid-template-columns: repeat(auto-fill, minmax(min(100%, 17rem), 1fr)) }
    .qlung-board .controls { margin: 0.7rem 0 }
    .qlung-board .control { flex: 1 1 17rem; min-width: 0; display: grid; grid-template-columns: 1fr 5.5rem;
      gap: 0 0.6rem }
    .qlung-board .control label { grid-column: 1 / 3 }
    .qlung-board .control.off { opacity: 0.45 }
    .qlung-board sub { line-height: 0 }
    .qlung-board select { grid-column: 1 / 3 }
    .qlung-board input, .qlung-board select, .qlung-board button { font: inherit; color: inherit; min-width: 0;
      min-height: 2rem; accent-color: var(--common) }
    .qlung-board input[type="number"], .qlung-board select, .qlung-board button { background: transparent;
      border: 1px solid var(--soft); border-radius: 4px; padding: 0 0.5rem }
    .qlung-board select option { color: #222; background: #fff }
    .qlung-board button { cursor: pointer }
    .qlung-board :is(input, select, button):focus-visible { outline: 3px solid var(--common); outline-offset: 2px }
    .qlung-board .panel { min-width: 0; max-width: 26rem; margin: 0 }
    .qlung-board .panel figcaption { font-weight: 600; margin: 0; text-align: left; color: inherit }
    .qlung-board svg { width: 100%; height: auto; display: block; background: transparent }
    .qlung-board svg text { font: 13px sans-serif; fill: currentColor }
    .qlung-board svg text.strong { font-weight: 700; fill: var(--rare) }
    .qlung-board svg .axis { stroke: currentColor } .qlung-board svg .grid { stroke: var(--line) }
    .qlung-board svg path.common { stroke: var(--common); stroke-width: 2.4 }
    .qlung-board svg path.rare { stroke: var(--rare); stroke-width: 2.4 }
    .qlung-board svg path.term { stroke-dasharray: 7 4; stroke-width: 1.6 }
    .qlung-board svg path.without { stroke: var(--soft); stroke-dasharray: 2 3; stroke-width: 1.6 }
    .qlung-board svg path.arc { stroke-width: 12 } .qlung-board svg path.gap { stroke: var(--line); stroke-width: 12 }
    .qlung-board svg .common.bar { fill: var(--common); stroke: none } .qlung-board svg .rare.bar { fill: var(--rare) }
    .qlung-board svg .pale { opacity: 0.5 } .qlung-board svg .cut { fill: var(--line); opacity: 0.5 }
    .qlung-board svg.drag { cursor: ew-resize; touch-action: pan-y }
    .qlung-board .key { display: flex; flex-wrap: wrap; gap: 0 1rem; margin: 0.3rem 0; padding: 0; list-style: none }
    .qlung-board .key svg { width: 2rem; height: 0.8rem; display: inline-block; margin-right: 0.4rem }
    .qlung-board .numbers { overflow-x: auto }
    .qlung-board table { border-collapse: collapse; font-variant-numeric: tabular-nums; margin: 0.5rem 0; width: auto }
    .qlung-board :is(th, td) { padding: 0.15rem 0.7rem; text-align: right; border-bottom: 1px solid var(--line) }
    @media print { .qlung-board :is(.buttons, .controls) { display: none } }`;

  function styleOnce() {
    if (document.getElementById("qlung-board-style")) return;
    const style = document.createElement("style");
    style.id = "qlung-board-style";
    style.textContent = STYLE;
    document.head.append(style);
  }

  const exact = (value) => String(+(+value).toPrecision(6));

  function mount(root) {
    const kind = root.dataset.qlungBoard, board = BOARDS[kind];
    if (!board || root.classList.contains("qlung-board")) return;
    const id = `qlung-${kind}-${document.querySelectorAll(".qlung-board").length}`;
    const inAddress = "address" in root.dataset;
    const state = { ...board.start };
    root.classList.add("qlung-board");
    root.setAttribute("role", "group");
    root.dataset.lmSuppressShortcuts = "true"; // in JupyterLab arrow keys are for the slider, not for the notebook
    root.setAttribute("aria-label", `Playground: ${board.title}`);
    const control = ({ name, label, low, high, log: logarithmic, step, options }) => `
      <div class="control" data-for="${name}"><label for="${id}-${name}">${label}</label>` + (options
        ? `<select id="${id}-${name}" name="${name}">${Object.entries(options).map(([value, words]) =>
          `<option value="${value}">${words}</option>`).join("")}</select></div>`
        : `<input type="range" id="${id}-${name}" data-name="${name}" min="${logarithmic ? log10(low) : low}"
          max="${logarithmic ? log10(high) : high}" step="${logarithmic ? 0.005 : step}">
          <input type="number" name="${name}" min="${low}" max="${high}" step="any" inputmode="decimal"
          aria-label="${label.replace(/<.*?>/g, "")}, exact value"></div>`);
    root.innerHTML = `<div class="buttons" role="group" aria-label="presets">
        ${Object.keys(board.presets).map((name) =>
          `<button type="button" data-preset="${name}">${name}</button>`).join("")}
        <button type="button" data-preset="">reset</button></div>
      <div class="controls">${board.controls.map(control).join("")}</div>
      <div class="panels">${Object.keys(board.panels).map((title, i) => `<figure class="panel"><figcaption
        id="${id}-panel-${i}">${title}</figcaption><svg viewBox="0 -8 340 270" role="img"
        aria-labelledby="${id}-panel-${i}" aria-describedby="${id}-numbers"
        ${board.drag && !i ? 'class="drag"' : ""}></svg></figure>`).join("")}</div>
      <ul class="key">${board.key.map(([style, words]) => `<li><svg viewBox="0 0 32 12" aria-hidden="true"><path
        class="${style}" d="M0 6L32 6"/></svg>${words}</li>`).join("")}</ul>
      <div class="numbers" id="${id}-numbers" tabindex="0" role="region" aria-label="${board.title}, numbers"></div>
      <p>${board.note}</p>`;
    const find = (selector) => root.querySelector(selector), svgs = [...root.querySelectorAll(".panel svg")];
    const fields = board.controls.map((spec) => ({
      ...spec, box: find(`[data-for="${spec.name}"]`), slider: find(`[data-name="${spec.name}"]`),
      exact: find(`[name="${spec.name}"]`),
    }));

    function draw() {
      const numbers = board.numbers(state);
      Object.values(board.panels).forEach((panel, i) => { svgs[i].innerHTML = panel(numbers, state); });
      const [head, ...rows] = board.table(numbers);
      const tr = (cells, open, close) => `<tr>${cells.map((cell) => open + cell + close).join("")}</tr>`;
      find(".numbers").innerHTML = `<table><thead>${tr(head, '<th scope="col">', "</th>")}</thead>
        <tbody>${rows.map((row) => tr(row, "<td>", "</td>")).join("")}</tbody></table>`;
    }

    function show(except) { // the state in all controls but the one that is being typed into
      for (const { name, box, slider, exact: field, log: logarithmic } of fields) {
        const used = board.used(state, name);
        box.classList.toggle("off", !used);
        field.disabled = !used;
        if (field !== except) field.value = slider ? exact(state[name]) : state[name];
        if (!slider) continue;
        slider.disabled = !used;
        if (slider !== except) slider.value = logarithmic ? log10(state[name]) : state[name];
        slider.setAttribute("aria-valuetext", exact(state[name]));
      }
      draw();
    }

    function set(changes, except) {
      for (const { name, low, high, options } of fields) {
        if (!(name in changes)) continue;
        const value = changes[name];
        if (options) { if (value in options) state[name] = value; }
        else if (value !== "" && Number.isFinite(+value)) state[name] = clamp(+value, low, high);
      }
      show(except);
    }

    function keep() { // only where a move ends: browsers limit how often an address may change
      if (!inAddress) return;
      history.replaceState(history.state, "", `#${new URLSearchParams({ board: kind, ...state })}`);
    }
    function restore() {
      const given = inAddress ? Object.fromEntries(new URLSearchParams(location.hash.slice(1))) : {};
      set(given.board === kind ? { ...board.start, ...given } : {});
    }

    root.addEventListener("input", ({ target: at }) => {
      const field = fields.find((one) => one.slider === at || one.exact === at);
      if (!field) return;
      const value = at === field.slider && field.log ? +(10 ** at.value).toPrecision(3) : at.value;
      set({ [field.name]: value }, at);
    });
    root.addEventListener("change", () => { show(); keep(); });
    root.addEventListener("click", ({ target: at }) => {
      const name = at.dataset?.preset;
      if (name === undefined) return;
      set(name ? board.presets[name] : board.start);
      keep();
    });
    if (board.drag) {
      const svg = svgs[0], span = log2(8000 / 62.5);
      const move = ({ clientX }) => {
        const { left, width } = svg.getBoundingClientRect(), x = ((clientX - left) / width) * 340;
        set({ lowpass: round(62.5 * 2 ** (((x - BOX.left) / (BOX.right - BOX.left)) * span)) });
      };
      svg.addEventListener("pointerdown", (event) => { svg.setPointerCapture(event.pointerId); move(event); });
      svg.addEventListener("pointermove", (event) => { if (svg.hasPointerCapture(event.pointerId)) move(event); });
      svg.addEventListener("pointerup", keep);
    }
    if (inAddress) addEventListener("hashchange", restore);
    restore();
  }

  function mountAll() {
    styleOnce();
    document.querySelectorAll("[data-qlung-board]").forEach(mount);
  }

  globalThis.qlungPlayground = { mount: mountAll, angles: ANGLES, ...BOARDS };
  if (document.readyState === "loading") addEventListener("DOMContentLoaded", mountAll);
  else mountAll();
})();
