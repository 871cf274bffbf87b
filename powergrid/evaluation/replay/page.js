"use strict";
// Draws a replay: a diagram, a voltage profile and traces for each of two policies, all at one step of the day.
(() => {
  const $ = (id) => document.getElementById(id);
  const facts = JSON.parse($("facts").textContent);
  const { scene, hours, band, ansi, policies, gear, devices, step_h: stepH } = facts;
  const T = hours.length, N = scene.nodes.bus.length, nBuses = scene.buses.name.length, nBranches = scene.branches.name.length;
  const FEW = 150; // buses that are drawn one by one; more go to a canvas
  const small = nBuses <= FEW;
  const HANDED = "#7b3fb8"; // handed back to the feeder's own controls
  const HUES = ["#0072b2", "#d55e00", "#009e73", "#b8408a", "#8c6d00", "#4aa3df", "#5b4a9c", "#3d4653", "#a04000", "#1b9e9e", "#7a7f00", "#c2554d"];
  const KIND = { storage: "storage", inverter: "PV or other inverter", generator: "generator", flexible_load: "flexible load", ev_charger: "EV charger", regulator: "regulator", capacitor: "capacitor", switch: "switch" };
  const state = { step: 0, shown: policies.length > 1 ? [0, 1] : [0], playing: false, view: null, charts: [], panels: [] };

  // -- numbers

  const store = policies.map(() => ({}));
  async function unpack() {
    const text = atob($("numbers").textContent), bytes = new Uint8Array(text.length);
    for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
    $("numbers").remove();
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    const buffer = await new Response(stream).arrayBuffer();
    const kinds = { uint8: Uint8Array, int16: Int16Array, uint16: Uint16Array };
    for (const [name, part] of Object.entries(facts.parts)) {
      const [steps, things] = part.shape, cut = name.indexOf(".");
      const packed = new kinds[part.kind](buffer, part.start, steps * things), data = new kinds[part.kind](steps * things);
      for (let thing = 0; thing < things; thing++) // differences become sums, which wrap around as they did
        for (let step = 0, i = thing * steps; step < steps; step++, i++) {
          if (step) packed[i] += packed[i - 1];
          data[step * things + thing] = packed[i]; // step by step, as they are shown
        }
      store[Number(name.slice(0, cut))][name.slice(cut + 1)] = { data, steps, things, scale: part.scale };
    }
  }
  const has = (policy, name) => name in store[policy];
  // What one thing has in a step; a day that ended early stays at its last.
  function value(policy, name, thing, step) {
    const part = store[policy][name];
    if (!part) return NaN;
    const raw = part.data[Math.min(step, part.steps - 1) * part.things + thing];
    if (part.scale.length === 1 && part.things !== 1) return raw * part.scale[0];
    return raw === -32768 ? NaN : raw * part.scale[Math.min(thing, part.scale.length - 1)];
  }
  // The same of all things as they are packed, without their scale.
  function row(policy, name, step) {
    const part = store[policy][name], t = Math.min(step, part.steps - 1);
    return part.data.subarray(t * part.things, (t + 1) * part.things);
  }
  function series(policy, name, thing = 0) {
    if (!has(policy, name)) return null;
    const own = Float64Array.from({ length: T }, (_, t) => (t < store[policy][name].steps ? value(policy, name, thing, t) : NaN));
    return own.some(Number.isFinite) ? own : null;
  }
  const voltage = (policy, node, step) => value(policy, "v_pu", node, step);
  const handedBack = (policy, i, step) => has(policy, "device.handed_back") && value(policy, "device.handed_back", i, step) > 0;
  const closed = (policy, branch, step) => (has(policy, "closed") ? value(policy, "closed", branch, step) > 0 : scene.branches.closed[branch] > 0);

  const nodesOf = Array.from({ length: nBuses }, () => []);
  scene.nodes.bus.forEach((bus, node) => { if (scene.nodes.number[node] <= 3) nodesOf[bus].push(node); });
  const middle = (band[0] + band[1]) / 2;
  // By bus, the voltage of the phase that is farthest from the middle of the band, NaN where none is alive.
  const shown = nodesOf.flatMap((nodes, bus) => nodes.map((node) => [bus, node])), VOLT = 1e-4;
  const busOf = Int32Array.from(shown, ([bus]) => bus), nodeOf = Int32Array.from(shown, ([, node]) => node);
  function worstVoltages(policy, step) {
    const v = row(policy, "v_pu", step), worst = new Float64Array(nBuses).fill(NaN);
    for (let i = 0; i < busOf.length; i++) {
      const own = v[nodeOf[i]] * VOLT, bus = busOf[i];
      if (own > 0 && !(Math.abs(own - middle) <= Math.abs(worst[bus] - middle))) worst[bus] = own;
    }
    return worst;
  }
  const outside = (v) => v < band[0] - 1e-9 || v > band[1] + 1e-9;

  // -- colours and words

  const mix = (a, b, t) => "#" + [0, 1, 2].map((i) => {
    const [x, y] = [a, b].map((c) => parseInt(c.slice(1 + 2 * i, 3 + 2 * i), 16));
    return Math.round(x + (y - x) * t).toString(16).padStart(2, "0");
  }).join("");
  const ramp = (stops) => (x) => {
    if (x <= stops[0][0]) return stops[0][1];
    for (let i = 1; i < stops.length; i++) {
      const [low, a] = stops[i - 1], [high, b] = stops[i];
      if (x <= high) return high === low ? b : mix(a, b, (x - low) / (high - low));
    }
    return stops[stops.length - 1][1];
  };
  // Blue is low and orange is high, which all eyes tell apart; colours jump at the limits.
  const reach = Math.max(0.1, 1.25 * (middle - band[0])), span = [middle - reach, middle + reach];
  const voltColour = ramp([[span[0], "#08244f"], [band[0] - 0.002, "#1f6fc4"], [band[0], "#8fc5ec"], [middle, "#d9dee2"], [band[1], "#f9bf83"], [band[1] + 0.002, "#e0560b"], [span[1], "#6f2000"]]);
  const loadColour = ramp([[0, "#b9c1cb"], [0.5, "#7f8a9a"], [1, "#323c4a"], [1.0001, "#cf1c74"], [1.6, "#6d0a46"]]);
  const quantised = (colour, step) => {
    const kept = new Map();
    return (x) => {
      const key = Math.round(x / step);
      if (!kept.has(key)) kept.set(key, colour(key * step));
      return kept.get(key);
    };
  };
  const voltShade = quantised(voltColour, 0.002), loadShade = quantised(loadColour, 0.04);
  const format = (x, digits = 0) => (Number.isFinite(x) ? (Math.abs(x) < 0.5 * 10 ** -digits ? 0 : x).toLocaleString("en-US", { minimumFractionDigits: digits, maximumFractionDigits: digits }).replace("-", "−") : "–");
  const kilo = (x) => format(x, Math.abs(x) < 10 && Math.abs(x) >= 0.05 ? 1 : 0);
  const signed = (x) => (x > 0 ? "+" : "") + format(x);
  const make = (tag, attributes = {}, ...children) => fill(document.createElement(tag), attributes, children);
  const makeSvg = (tag, attributes = {}, ...children) => fill(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);
  function fill(element, attributes, children) {
    for (const [key, one] of Object.entries(attributes)) if (one !== undefined) element.setAttribute(key, one);
    element.append(...children);
    return element;
  }
  const setText = (element, text) => { if (element.textContent !== text) element.textContent = text; };

  // -- tooltip

  const tip = $("tip");
  function showTip(event, lines) {
    tip.replaceChildren(...lines);
    tip.hidden = false;
    const box = tip.getBoundingClientRect();
    const x = event.clientX + 14 + box.width > innerWidth ? event.clientX - box.width - 12 : event.clientX + 14;
    tip.style.left = Math.max(4, x) + "px";
    tip.style.top = Math.max(4, Math.min(event.clientY + 14, innerHeight - box.height - 6)) + "px";
  }
  const hideTip = () => { tip.hidden = true; };
  const title = (text, kind = "") => { const line = make("div", {}, make("b", {}, text)); if (kind) line.append(" ", make("span", { class: "dim" }, kind)); return line; };
  function rows(pairs) {
    const table = make("table");
    for (const [name, text, bad] of pairs) table.append(make("tr", {}, make("td", {}, name), make("td", {}, bad ? make("em", {}, text) : text)));
    return table;
  }

  function tellBus(policy, bus, step) {
    const lines = nodesOf[bus].map((node) => {
      const v = voltage(policy, node, step);
      const told = v > 0 ? `${v.toFixed(4)} pu${v < band[0] ? " low" : v > band[1] ? " high" : ""}` : "no voltage";
      return ["phase " + ("ABC"[scene.nodes.number[node] - 1] || scene.nodes.number[node]), told, outside(v) || !(v > 0)];
    });
    return [title("bus " + scene.buses.name[bus], format(scene.buses.kv[bus], 2) + " kV"), rows(lines)];
  }
  function tellBranch(policy, branch, step) {
    const [kind, ...rest] = scene.branches.name[branch].split("."), amps = scene.branches.amps[branch], pairs = [];
    if (!closed(policy, branch, step)) pairs.push(["state", kind === "capacitor" ? "off" : "open"]);
    if (amps > 0) {
      const load = value(policy, "loading", branch, step);
      pairs.push(["loading", `${load >= 2.55 ? "≥ " : ""}${format(100 * load)} % of ${format(amps)} A`, load > 1]);
    }
    if (has(policy, "p_kw")) pairs.push(["power", kilo(value(policy, "p_kw", branch, step)) + " kW"]);
    if (has(policy, "q_kvar")) pairs.push(["reactive", kilo(value(policy, "q_kvar", branch, step)) + " kvar"]);
    return [title(rest.join("."), kind), rows(pairs)];
  }
  const position = (policy, i, step) => value(policy, "position", i, step);
  const tellPosition = (policy, i, step) => (gear[i].kind === "regulator" ? "tap " + signed(position(policy, i, step)) : `${position(policy, i, step)} of ${gear[i].most} on`);
  function tellDevice(policy, i, step) {
    const of = (name) => value(policy, "device." + name, i, step), device = devices[i], pairs = [];
    const add = (name, x, unit, digits) => { if (Number.isFinite(x)) pairs.push([name, `${digits === undefined ? kilo(x) : format(x, digits)} ${unit}`]); };
    add("delivers", of("p_kw"), "kW");
    add("delivers", of("q_kvar"), "kvar");
    add("asked", of("asked_p_kw"), "kW");
    add("set to", of("set_p_kw"), "kW");
    add("sun offers", of("available_kw"), "kW");
    add("charge", 100 * of("soc"), "%", 0);
    add("cycles today", of("cycles"), "", 2);
    add("position", of("position"), "", 0);
    add("asked", of("asked_position"), "", 0);
    if (device.connected !== undefined || has(policy, "device.connected")) add("cars", of("connected"), "", 0);
    add("owed", of("owed_kwh"), "kWh");
    if (handedBack(policy, i, step)) pairs.push(["handed back to", "its own control", true]);
    const rated = { p_max_kw: "kW", s_max_kva: "kVA", e_max_kwh: "kWh" };
    const told = Object.entries(rated).filter(([key]) => device[key]).map(([key, unit]) => `${format(device[key])} ${unit}`);
    return [title(device.name, KIND[device.kind] || device.kind), rows(pairs), ...(told.length ? [make("div", { class: "dim" }, "rated " + told.join(", "))] : [])];
  }
  function tellSymbol(policy, symbol, step) {
    if (symbol.kind === "source") return [title("source", "import positive"), rows([["power", kilo(value(policy, "network.source_p_kw", 0, step)) + " kW"], ["reactive", kilo(value(policy, "network.source_q_kvar", 0, step)) + " kvar"]])];
    const lines = [];
    if (symbol.gear.length) lines.push(rows(symbol.gear.map((i) => [gear[i].name, tellPosition(policy, i, step)])));
    for (const i of symbol.devices) {
      if (!symbol.branches.length) lines.push(...tellDevice(policy, i, step));
      else if (handedBack(policy, i, step)) lines.push(rows([[devices[i].name + " handed back to", "its own control", true]]));
    }
    for (const branch of symbol.branches.slice(0, 3)) lines.push(...tellBranch(policy, branch, step));
    return lines;
  }
  // What stands beside a symbol, short.
  function numberOf(policy, symbol, step) {
    if (symbol.kind === "source") return kilo(value(policy, "network.source_p_kw", 0, step)) + " kW";
    if (symbol.gear.length) return symbol.gear.map((i) => (gear[i].kind === "regulator" ? signed(position(policy, i, step)) : gear[i].most > 1 ? `${position(policy, i, step)}/${gear[i].most}` : position(policy, i, step) ? "on" : "off")).join(" ");
    if (symbol.branches.length) return closed(policy, symbol.branches[0], step) ? "closed" : "open";
    const i = symbol.devices[0], soc = value(policy, "device.soc", i, step);
    return kilo(value(policy, "device.p_kw", i, step)) + " kW" + (Number.isFinite(soc) ? ` ${format(100 * soc)} %` : "");
  }

  // -- diagram

  const ends = scene.branches.ends, segments = [];
  ends.forEach((buses, branch) => { for (const other of buses.slice(1)) segments.push([branch, buses[0], other]); });
  const xy = scene.buses.xy;
  const widthOf = (branch) => {
    const kv = scene.buses.kv[ends[branch][ends[branch].length - 1]];
    return kv < 1 ? 0.9 : [1.2, 1.5, 2, 2.6][Math.min(scene.branches.phases[branch], 3)];
  };
  const whole = { x: 0, y: 0, w: scene.width, h: scene.height };

  class Diagram {
    constructor(panel, policy) {
      this.policy = policy;
      this.box = make("div", { class: "diagram", style: `aspect-ratio:${scene.width}/${scene.height};flex:none`, "aria-label": "one-line diagram" });
      this.svg = makeSvg("svg", { role: "img" });
      if (!small) { this.canvas = make("canvas"); this.box.append(this.canvas); }
      this.box.append(this.svg);
      const zoom = make("div", { class: "zoom" });
      for (const [sign, name, factor] of [["+", "Zoom in", 1.6], ["−", "Zoom out", 1 / 1.6], ["⤢", "Fit", 0]]) {
        const button = make("button", { type: "button", title: name, "aria-label": name }, sign);
        button.onclick = () => zoomBy(factor);
        zoom.append(button);
      }
      this.box.append(zoom);
      panel.append(this.box);
      this.build();
      this.listen();
    }
    build() {
      const lines = makeSvg("g", { "stroke-linecap": "round", fill: "none" }), dots = makeSvg("g"), names = makeSvg("g"), symbols = makeSvg("g");
      this.names = names;
      if (small) {
        this.lines = segments.map(([branch, a, b]) => {
          const line = makeSvg("line", { x1: xy[a][0], y1: xy[a][1], x2: xy[b][0], y2: xy[b][1] });
          lines.append(line);
          return [line, branch];
        });
        this.dots = xy.map(([x, y]) => { const dot = makeSvg("circle", { cx: x, cy: y, "stroke-width": 0.8 }); dots.append(dot); return dot; });
        const size = scene.nameSize;
        scene.buses.label.forEach((place, bus) => {
          if (place.length) names.append(makeSvg("text", { class: "bus", x: place[0], y: place[1] + 0.35 * size, "text-anchor": "middle", "font-size": size, "stroke-width": size / 5 }, scene.buses.name[bus]));
        });
      }
      this.symbols = scene.symbols.map((symbol) => this.buildSymbol(symbol, symbols));
      this.ring = makeSvg("circle", { fill: "none", stroke: "#111827", "stroke-width": 1.5, visibility: "hidden", "vector-effect": "non-scaling-stroke" });
      this.svg.append(lines, dots, names, symbols, this.ring);
      this.fit();
    }
    buildSymbol(symbol, layer) {
      const shape = scene.branches.shapes[symbol.kind === "switch" ? "switch_closed" : symbol.kind], r = scene.radius, parts = { symbol };
      if (symbol.lead && symbol.lead.length) {
        const [x1, y1, x2, y2] = symbol.lead;
        layer.append(makeSvg("line", { x1, y1, x2, y2, stroke: "#7d8794", "stroke-width": 0.9 }));
      }
      const outer = makeSvg("g", { transform: `translate(${symbol.x} ${symbol.y})` }), inner = makeSvg("g", { transform: `rotate(${symbol.turn || 0}) scale(${symbol.kind === "switch" && nBuses > 60 ? 0.6 * r : r})` });
      shape.paths.forEach((path, i) => {
        const stroke = makeSvg("path", { d: path, fill: i < shape.outlines && shape.fill ? shape.fill : "none", stroke: "#222b37", "stroke-width": 1.1 / r, "stroke-linecap": "round", "stroke-linejoin": "round" });
        inner.append(stroke);
        if (i === 0) parts.first = stroke;
        if (i === 0 && symbol.kind === "storage") { parts.level = makeSvg("rect", { x: -0.92, width: 1.84, y: 0.92, height: 0, fill: "#7cc08a" }); inner.append(parts.level); }
      });
      if (symbol.devices.some((i) => policies.some((_, p) => has(p, "device.handed_back") && series(p, "device.handed_back", i)))) {
        parts.halo = makeSvg("circle", { class: "handed-back", r: 1.45 * r, fill: "none", stroke: HANDED, "stroke-width": 2, visibility: "hidden" });
        outer.append(parts.halo);
      }
      parts.group = inner;
      outer.append(inner);
      layer.append(outer);
      parts.scaled = outer;
      if (symbol.label) {
        const { x, y, text, anchor, lines } = symbol.label, size = scene.size, group = makeSvg("g", { transform: `translate(${x} ${y})` });
        if (lines > 1) group.append(makeSvg("text", { class: "name", "text-anchor": anchor, "font-size": 0.94 * size, y: -0.22 * size }, text));
        parts.value = makeSvg("text", { class: "value", "text-anchor": anchor, "font-size": size, y: lines > 1 ? 0.92 * size : 0.35 * size });
        group.append(parts.value);
        layer.append(group);
        parts.text = group;
      }
      return parts;
    }
    fit() {
      const v = state.view || whole, zoom = scene.width / v.w;
      this.svg.setAttribute("viewBox", `${v.x} ${v.y} ${v.w} ${v.h}`);
      this.box.classList.toggle("moved", zoom > 1.001);
      const k = small ? zoom ** -0.35 : zoom ** -0.75;
      for (const part of this.symbols) {
        part.scaled.setAttribute("transform", `translate(${part.symbol.x} ${part.symbol.y}) scale(${k})`);
        if (part.text) {
          const { x, y } = part.symbol, l = part.symbol.label; // names stay as near as the symbol grows
          part.text.setAttribute("transform", `translate(${x + (l.x - x) * k} ${y + (l.y - y) * k}) scale(${k})`);
        }
      }
      this.names.setAttribute("visibility", nBuses <= 60 || zoom > 1.7 ? "visible" : "hidden");
      this.zoom = zoom;
      this.k = k;
    }
    update(step) {
      const p = this.policy;
      if (small) {
        for (const [line, branch] of this.lines) {
          const load = value(p, "loading", branch, step), on = closed(p, branch, step);
          line.setAttribute("stroke", on ? loadShade(load) : "#9aa3ae");
          line.setAttribute("stroke-width", widthOf(branch) * (load > 1 ? 1.8 : 1) * (nBuses > 60 ? 0.8 : 1.15));
          line.setAttribute("stroke-dasharray", on ? "none" : "3 3");
        }
        const r = nBuses <= 60 ? 4.6 : 3.2, worst = worstVoltages(p, step);
        this.dots.forEach((dot, bus) => {
          const v = worst[bus], bad = outside(v);
          dot.setAttribute("fill", Number.isNaN(v) ? "#fff" : voltColour(v));
          dot.setAttribute("r", bad ? 1.45 * r : r);
          dot.setAttribute("stroke", Number.isNaN(v) ? "#9aa3ae" : "#3d4653");
          dot.setAttribute("stroke-width", bad ? 1.3 : 0.8);
        });
      } else this.paint(step);
      for (const part of this.symbols) this.updateSymbol(part, step);
    }
    updateSymbol(part, step) {
      const { symbol } = part, p = this.policy;
      if (part.value) setText(part.value, numberOf(p, symbol, step));
      if (part.halo) part.halo.setAttribute("visibility", symbol.devices.some((i) => handedBack(p, i, step)) ? "visible" : "hidden");
      if (part.level) {
        const soc = value(p, "device.soc", symbol.devices[0], step);
        part.level.setAttribute("y", 0.92 - 1.84 * soc);
        part.level.setAttribute("height", Math.max(0, 1.84 * soc));
      }
      if (symbol.kind === "switch") part.first.setAttribute("fill", closed(p, symbol.branches[0], step) ? "#333b47" : "#fff");
      if (symbol.kind === "capacitor") part.group.setAttribute("opacity", symbol.branches.some((branch) => closed(p, branch, step)) ? 1 : 0.35);
    }
    paint(step) {
      const c = this.canvas, dpr = devicePixelRatio || 1, box = this.box.getBoundingClientRect(), v = state.view || whole, p = this.policy;
      if (!box.width) return;
      const w = Math.round(box.width * dpr), h = Math.round(box.height * dpr);
      if (c.width !== w || c.height !== h) { c.width = w; c.height = h; }
      const g = c.getContext("2d"), s = Math.min(w / v.w, h / v.h);
      g.setTransform(1, 0, 0, 1, 0, 0);
      g.clearRect(0, 0, w, h);
      g.setTransform(s, 0, 0, s, (w - s * v.w) / 2 - s * v.x, (h - s * v.h) / 2 - s * v.y);
      const buckets = new Map(), grow = this.zoom ** -0.55, loads = row(p, "loading", step), seen = this.inView(v);
      for (const [branch, a, b] of segments) {
        if (!seen(a) && !seen(b)) continue;
        const load = loads[branch] / 100, on = closed(p, branch, step), width = widthOf(branch) * 0.8 * (load > 1 ? 1.8 : 1);
        const key = (on ? loadShade(load) : "#9aa3ae") + "|" + width.toFixed(2) + "|" + on;
        if (!buckets.has(key)) buckets.set(key, new Path2D());
        const path = buckets.get(key);
        path.moveTo(xy[a][0], xy[a][1]);
        path.lineTo(xy[b][0], xy[b][1]);
      }
      g.lineCap = "round";
      const order = [...buckets.keys()].sort((a, b) => Number(a.split("|")[1]) - Number(b.split("|")[1]));
      for (const key of order) {
        const [colour, width, on] = key.split("|");
        g.strokeStyle = colour;
        g.lineWidth = width * grow;
        g.setLineDash(on === "true" ? [] : [3 * grow, 3 * grow]);
        g.stroke(buckets.get(key));
      }
      g.setLineDash([]);
      const inner = new Map(), outer = new Map(), r = (nBuses > 1500 ? 1.3 : 2.2) * grow, worst = worstVoltages(p, step), tiny = r * s < 2 * dpr;
      for (let bus = 0; bus < nBuses; bus++) {
        if (!seen(bus)) continue;
        const bad = outside(worst[bus]), key = Number.isNaN(worst[bus]) ? "#ffffff" : voltShade(worst[bus]), of = bad ? outer : inner;
        if (!of.has(key)) of.set(key, new Path2D());
        const [x, y] = xy[bus], radius = bad ? 1.7 * r : r, path = of.get(key);
        if (tiny) path.rect(x - 0.9 * radius, y - 0.9 * radius, 1.8 * radius, 1.8 * radius); // no eye tells it from a dot
        else { path.moveTo(x + radius, y); path.arc(x, y, radius, 0, 6.2832); }
      }
      g.lineWidth = (tiny ? 0.5 : 0.25) * grow;
      g.strokeStyle = tiny ? "#8d96a3" : "#3d4653";
      for (const of of [inner, outer]) for (const [colour, path] of of) {
        if (!tiny || of === inner) g.stroke(path);
        g.fillStyle = colour;
        g.fill(path);
      }
      if (this.zoom > 4) this.write(g, v, s, dpr);
    }
    inView(v) {
      const m = 0.02 * v.w, [x1, x2, y1, y2] = [v.x - m, v.x + v.w + m, v.y - m, v.y + v.h + m];
      return (bus) => xy[bus][0] >= x1 && xy[bus][0] <= x2 && xy[bus][1] >= y1 && xy[bus][1] <= y2;
    }
    // Names of buses, where few enough are in view that they can be read.
    write(g, v, s, dpr) {
      const seen = this.inView(v), there = [];
      for (let bus = 0; bus < nBuses; bus++) if (seen(bus)) there.push(bus);
      if (there.length > 400) return;
      g.font = `${10 * dpr / s}px system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif`;
      g.fillStyle = "#5b6675";
      const taken = [], tall = 11 * dpr / s;
      for (const bus of there) {
        const [x, y] = xy[bus], left = x + 5 * dpr / s, wide = g.measureText(scene.buses.name[bus]).width;
        if (taken.some(([a, b, w]) => left < a + w && a < left + wide && Math.abs(y - b) < tall)) continue;
        taken.push([left, y, wide]);
        g.fillText(scene.buses.name[bus], left, y + 0.35 * tall);
      }
    }
    listen() {
      let drag = null;
      this.box.addEventListener("pointermove", (event) => {
        if (drag) {
          const scale = this.scale();
          setView({ ...drag.view, x: drag.view.x - (event.clientX - drag.x) / scale, y: drag.view.y - (event.clientY - drag.y) / scale });
          return;
        }
        this.point(event);
      });
      this.box.addEventListener("pointerleave", () => { hideTip(); this.ring.setAttribute("visibility", "hidden"); });
      this.box.addEventListener("pointerdown", (event) => {
        if (event.target.closest(".zoom")) return;
        if (this.zoom > 1.001) { drag = { x: event.clientX, y: event.clientY, view: state.view }; this.box.setPointerCapture(event.pointerId); } else this.point(event);
      });
      for (const end of ["pointerup", "pointercancel"]) this.box.addEventListener(end, () => { drag = null; });
      this.box.addEventListener("dblclick", (event) => { if (!event.target.closest(".zoom")) zoomBy(0); });
      this.box.addEventListener("wheel", (event) => {
        if (!(event.ctrlKey || event.metaKey)) return; // the page itself scrolls
        event.preventDefault();
        const [x, y] = this.at(event);
        zoomBy(event.deltaY < 0 ? 1.25 : 0.8, x, y);
      }, { passive: false });
    }
    scale() { const v = state.view || whole, box = this.box.getBoundingClientRect(); return Math.min(box.width / v.w, box.height / v.h); }
    at(event) {
      const v = state.view || whole, box = this.box.getBoundingClientRect(), s = this.scale();
      return [v.x + (event.clientX - box.left - (box.width - s * v.w) / 2) / s, v.y + (event.clientY - box.top - (box.height - s * v.h) / 2) / s];
    }
    point(event) {
      if (event.target.closest(".zoom")) return hideTip();
      const [x, y] = this.at(event), near = 9 / this.scale(), found = this.find(x, y, near);
      if (!found) { this.ring.setAttribute("visibility", "hidden"); return hideTip(); }
      const [kind, i, cx, cy, r] = found;
      fill(this.ring, { cx, cy, r, visibility: "visible" }, []);
      showTip(event, kind === "symbol" ? tellSymbol(this.policy, scene.symbols[i], state.step) : kind === "bus" ? tellBus(this.policy, i, state.step) : tellBranch(this.policy, i, state.step));
    }
    find(x, y, near) {
      let best = null, least = Infinity;
      scene.symbols.forEach((symbol, i) => {
        const l = symbol.label;
        let d = Math.hypot(symbol.x - x, symbol.y - y) - scene.radius * this.k;
        if (l && d > 0) { // its name and number are part of it
          const lx = symbol.x + (l.x - symbol.x) * this.k, ly = symbol.y + (l.y - symbol.y) * this.k, half = 30 * this.k;
          const mid = l.anchor === "start" ? lx + half : l.anchor === "end" ? lx - half : lx;
          if (Math.abs(mid - x) < half && Math.abs(ly - y) < scene.size * this.k) d = 0;
        }
        if (d <= 0 && d < least) { least = d; best = ["symbol", i, symbol.x, symbol.y, 1.5 * scene.radius * this.k]; }
      });
      if (best) return best;
      for (let bus = 0; bus < nBuses; bus++) {
        const d = Math.hypot(xy[bus][0] - x, xy[bus][1] - y);
        if (d < Math.min(near, least)) { least = d; best = ["bus", bus, xy[bus][0], xy[bus][1], Math.max(0.7 * near, 2)]; }
      }
      if (best) return best;
      for (const [branch, a, b] of segments) {
        const [ax, ay] = xy[a], [bx, by] = xy[b], dx = bx - ax, dy = by - ay;
        const t = Math.max(0, Math.min(1, ((x - ax) * dx + (y - ay) * dy) / (dx * dx + dy * dy || 1)));
        const d = Math.hypot(ax + t * dx - x, ay + t * dy - y);
        if (d < Math.min(0.8 * near, least)) { least = d; best = ["branch", branch, ax + t * dx, ay + t * dy, 0.35 * near]; }
      }
      return best;
    }
  }
  function setView(view) {
    if (view) {
      view.x = Math.max(-0.2 * view.w, Math.min(view.x, whole.w - 0.8 * view.w));
      view.y = Math.max(-0.2 * view.h, Math.min(view.y, whole.h - 0.8 * view.h));
    }
    state.view = view;
    for (const { diagram } of state.panels) { diagram.fit(); if (!small) diagram.paint(state.step); }
  }
  function zoomBy(factor, x, y) {
    const v = state.view || whole, w = factor ? Math.min(whole.w, Math.max(whole.w / (small ? 5 : 60), v.w / factor)) : whole.w;
    if (w >= whole.w * 0.999) return setView(null);
    const k = w / v.w, [cx, cy] = x === undefined ? [v.x + v.w / 2, v.y + v.h / 2] : [x, y];
    setView({ x: cx - (cx - v.x) * k, y: cy - (cy - v.y) * k, w, h: v.h * k });
  }

  // -- charts

  function ticksOf(low, high, count, whole) {
    const raw = Math.max((high - low) / count || 1, whole ? 1 : 0), power = 10 ** Math.floor(Math.log10(raw)), step = (whole ? [1, 2, 5, 10] : [1, 2, 2.5, 5, 10]).find((m) => m * power >= raw * 0.999) * power, found = [];
    for (let x = Math.ceil(low / step - 1e-9) * step; x <= high + 1e-9 * step; x += step) found.push(x);
    return [found, Math.max(0, -Math.floor(Math.log10(step) + 1e-9) + (String(step / power) === "2.5" ? 1 : 0))];
  }
  class Canvas {
    constructor(parent, height, grows) {
      this.box = make("div", { class: grows ? "chart tall" : "chart", style: grows ? `flex:1 1 ${height}px;min-height:${height}px` : `height:${height}px` });
      this.canvas = make("canvas");
      this.box.append(this.canvas);
      parent.append(this.box);
      this.pad = { left: 50, right: 8, top: 6, bottom: 19 };
    }
    begin() {
      const dpr = devicePixelRatio || 1, box = this.box.getBoundingClientRect();
      this.w = box.width;
      this.h = box.height;
      const w = Math.round(box.width * dpr), h = Math.round(box.height * dpr);
      if (this.canvas.width !== w || this.canvas.height !== h) {
        this.canvas.width = w;
        this.canvas.height = h;
        Object.assign(this.canvas.style, { position: "absolute", inset: "0", objectFit: "contain", objectPosition: "left top" });
      }
      const g = this.canvas.getContext("2d");
      g.setTransform(dpr, 0, 0, dpr, 0, 0);
      g.clearRect(0, 0, this.w, this.h);
      g.font = "11px system-ui, -apple-system, 'Segoe UI', Roboto, 'DejaVu Sans', sans-serif";
      return g;
    }
    x(u) { return this.pad.left + (u - this.xs[0]) / (this.xs[1] - this.xs[0]) * (this.w - this.pad.left - this.pad.right); }
    y(u) { return this.h - this.pad.bottom - (u - this.ys[0]) / (this.ys[1] - this.ys[0]) * (this.h - this.pad.top - this.pad.bottom); }
    axes(g, xTicks) {
      const [found, digits] = ticksOf(this.ys[0], this.ys[1], Math.max(2, this.h / 42), this.spec && this.spec.whole);
      g.textBaseline = "middle";
      g.textAlign = "right";
      g.lineWidth = 1;
      for (const at of found) {
        const y = Math.round(this.y(at)) + 0.5;
        g.strokeStyle = "#e8ebef";
        line(g, this.pad.left, y, this.w - this.pad.right, y);
        g.fillStyle = "#6a7482";
        g.fillText(format(at, digits), this.pad.left - 6, y);
      }
      g.textBaseline = "alphabetic";
      for (const [at, text] of xTicks) {
        const x = this.x(at), half = g.measureText(text).width / 2;
        g.strokeStyle = "#c9cfd6";
        line(g, Math.round(x) + 0.5, this.h - this.pad.bottom, Math.round(x) + 0.5, this.h - this.pad.bottom + 3);
        g.fillStyle = "#6a7482";
        g.textAlign = "center";
        g.fillText(text, Math.max(this.pad.left + half - 4, Math.min(x, this.w - this.pad.right - half + 4)), this.h - 4);
      }
      g.strokeStyle = "#c9cfd6";
      line(g, this.pad.left, Math.round(this.h - this.pad.bottom) + 0.5, this.w - this.pad.right, Math.round(this.h - this.pad.bottom) + 0.5);
    }
    clip(g) {
      g.save();
      g.beginPath();
      g.rect(this.pad.left, 0, this.w - this.pad.left - this.pad.right, this.h - this.pad.bottom + 1);
      g.clip();
    }
  }
  function line(g, x1, y1, x2, y2) { g.beginPath(); g.moveTo(x1, y1); g.lineTo(x2, y2); g.stroke(); }

  const end = hours[T - 1] + (T > 1 ? hours[T - 1] - hours[T - 2] : stepH);
  const hourTicks = (() => {
    const every = [0.25, 0.5, 1, 3, 6, 12, 24, 48, 168].find((each) => end / each <= 8.01) || 168, found = [];
    const start = facts.times[0].slice(-5).split(":").reduce((h, m) => Number(h) + Number(m) / 60, 0) || 0;
    for (let h = 0; h <= end + 1e-6; h += every) {
      const clock = (start + h) % 24, day = Math.floor((start + h) / 24);
      const text = `${String(Math.floor(clock + 1e-9)).padStart(2, "0")}:${String(Math.round((clock % 1) * 60) % 60).padStart(2, "0")}`;
      found.push([h, every >= 24 ? `day ${day + 1}` : h === end && clock === 0 ? "24:00" : text]);
    }
    return found;
  })();

  class Trace extends Canvas {
    constructor(parent, spec, policy) {
      const head = make("h3", {}, spec.title, make("small", {}, spec.unit));
      if (state.shown.length > 1) head.append(make("span", { class: "who" }, policies[policy].name));
      parent.append(head);
      super(parent, 118, false);
      this.cursor = make("div", { class: "cursor" });
      this.box.append(this.cursor);
      this.spec = spec;
      this.lines = spec.of(policy);
      this.xs = [0, end];
      this.ys = spec.range;
      this.keys = make("div", { class: "keys" });
      parent.append(this.keys);
      this.values = this.lines.filter((each) => each.name).map((each) => {
        const bold = make("b"), key = make("span", {}, make("i", { style: `background:${each.colour};${each.dash ? "opacity:.6" : ""}` }), each.name + " ", bold);
        this.keys.append(key);
        return [bold, each];
      });
      const pick = (event) => {
        const box = this.canvas.getBoundingClientRect(), u = (event.clientX - box.left - this.pad.left) / (this.w - this.pad.left - this.pad.right) * end;
        let step = 0;
        while (step < T - 1 && hours[step + 1] <= u) step++;
        return step;
      };
      this.canvas.addEventListener("pointerdown", (event) => { this.canvas.setPointerCapture(event.pointerId); setStep(pick(event)); });
      this.canvas.addEventListener("pointermove", (event) => {
        const step = pick(event);
        if (event.buttons) setStep(step);
        showTip(event, [title(facts.times[step], spec.title), rows(this.lines.filter((each) => each.name).slice(0, 14).map((each) => [each.name, spec.tell(each.values[step])]))]);
      });
      this.canvas.addEventListener("pointerleave", hideTip);
    }
    draw() {
      const g = this.begin();
      this.axes(g, hourTicks);
      this.clip(g);
      for (const limit of this.spec.limits || []) {
        const y = Math.round(this.y(limit.at)) + 0.5;
        g.strokeStyle = limit.colour;
        g.setLineDash(limit.dash);
        line(g, this.pad.left, y, this.w, y);
      }
      g.setLineDash([]);
      for (const each of this.lines) {
        g.beginPath();
        let on = false;
        for (let t = 0; t < T; t++) {
          const v = each.values[t], x1 = this.x(hours[t]), x2 = this.x(t + 1 < T ? hours[t + 1] : end);
          if (!Number.isFinite(v)) { on = false; continue; }
          if (on) g.lineTo(x1, this.y(v)); else g.moveTo(x1, this.y(v));
          g.lineTo(x2, this.y(v));
          on = true;
        }
        g.strokeStyle = each.colour;
        g.lineWidth = each.width || 1.7;
        g.lineJoin = "round";
        g.setLineDash(each.dash || []);
        g.stroke();
        if (each.area) {
          g.lineTo(this.x(end), this.y(0));
          g.lineTo(this.x(0), this.y(0));
          g.globalAlpha = 0.16;
          g.fillStyle = each.colour;
          g.fill();
          g.globalAlpha = 1;
        }
      }
      g.setLineDash([]);
      g.restore();
      this.update(state.step);
    }
    update(step) {
      if (!this.w) return;
      const x = this.x(hours[step] + (step + 1 < T ? hours[step + 1] - hours[step] : end - hours[step]) / 2);
      this.cursor.style.left = `${(100 * x) / this.w}%`; // a part of the width: paper has another
      for (const [bold, each] of this.values) setText(bold, this.spec.tell(each.values[step]));
    }
  }

  const limitLines = [
    { at: ansi.B[0], colour: "#c48a5a", dash: [2, 3] }, { at: ansi.B[1], colour: "#c48a5a", dash: [2, 3] },
    { at: band[0], colour: "#a3300a", dash: [6, 4] }, { at: band[1], colour: "#a3300a", dash: [6, 4] },
  ];
  const voltRange = () => {
    let low = band[0], high = band[1];
    policies.forEach((_, p) => {
      const lows = series(p, "network.network_v_min_pu") || [], highs = series(p, "network.network_v_max_pu") || [];
      for (const v of lows) if (v > 0.3) low = Math.min(low, v);
      for (const v of highs) if (Number.isFinite(v)) high = Math.max(high, v);
    });
    const pad = 0.06 * (high - low);
    return [low - pad, high + pad];
  };
  class Profile extends Canvas {
    constructor(parent, policy) {
      const head = make("h3", {}, "Voltage over distance from the source", make("small", {}, "pu, km"));
      if (state.shown.length > 1) head.append(make("span", { class: "who" }, policies[policy].name));
      parent.append(head);
      super(parent, 230, true);
      this.policy = policy;
      this.ys = Profile.range || (Profile.range = voltRange());
      const km = scene.nodes.km, far = Math.max(...km.filter((_, n) => scene.nodes.phase[n] >= 0), 0) || 1;
      this.xs = [-0.02 * far, 1.02 * far];
      const [found, digits] = ticksOf(0, far, 6);
      this.xTicks = found.map((at) => [at, format(at, digits)]);
      const keys = make("div", { class: "keys" }), seen = new Set(scene.nodes.phase);
      for (let phase = 0; phase < 3; phase++) if (seen.has(phase)) keys.append(make("span", {}, make("i", { style: `background:${facts.phases[phase]}` }), "phase " + "ABC"[phase]));
      if (scene.nodes.secondary.some(Boolean)) keys.append(make("span", {}, make("i", { style: "background:#333;opacity:.35" }), "below 1 kV"));
      keys.append(make("span", {}, make("i", { style: "background:repeating-linear-gradient(90deg,#a3300a 0 4px,transparent 4px 6px)" }), `band ${band[0]}–${band[1]}`));
      keys.append(make("span", {}, make("i", { style: "background:repeating-linear-gradient(90deg,#c48a5a 0 2px,transparent 2px 4px)" }), "ANSI range B"));
      parent.append(keys);
      this.canvas.addEventListener("pointermove", (event) => {
        const box = this.canvas.getBoundingClientRect(), x = event.clientX - box.left, y = event.clientY - box.top;
        let best = -1, least = 12;
        for (let n = 0; n < N; n++) {
          const v = voltage(this.policy, n, state.step);
          if (scene.nodes.phase[n] < 0 || !(v > 0)) continue;
          const d = Math.hypot(this.x(km[n]) - x, this.y(v) - y);
          if (d < least) { least = d; best = n; }
        }
        if (best < 0) return hideTip();
        const v = voltage(this.policy, best, state.step);
        showTip(event, [title("bus " + scene.buses.name[scene.nodes.bus[best]]), rows([["phase " + "ABC"[scene.nodes.phase[best]], v.toFixed(4) + " pu", outside(v)], ["distance", format(km[best], 2) + " km"]])]);
      });
      this.canvas.addEventListener("pointerleave", hideTip);
    }
    draw() { this.update(state.step); }
    update(step) {
      const g = this.begin(), { km, phase, secondary, pairs } = scene.nodes;
      if (!this.w) return;
      this.axes(g, this.xTicks);
      this.clip(g);
      g.fillStyle = "rgba(120,140,160,0.07)";
      g.fillRect(this.pad.left, this.y(band[1]), this.w, this.y(band[0]) - this.y(band[1]));
      for (const limit of limitLines) {
        const y = Math.round(this.y(limit.at)) + 0.5;
        g.strokeStyle = limit.colour;
        g.lineWidth = 1;
        g.setLineDash(limit.dash);
        line(g, this.pad.left, y, this.w, y);
      }
      g.setLineDash([]);
      const many = N > 1500, v = Float64Array.from(row(this.policy, "v_pu", step), (raw) => raw * VOLT);
      for (const low of [1, 0]) for (let of = 0; of < 3; of++) {
        g.strokeStyle = g.fillStyle = facts.phases[of];
        g.globalAlpha = low ? 0.3 : 1;
        g.lineWidth = low ? 0.6 : 1.4;
        g.beginPath();
        for (let i = 0; i < pairs.length; i += 2) {
          const a = pairs[i], b = pairs[i + 1];
          if (phase[a] !== of || (secondary[a] || secondary[b]) !== low || !(v[a] > 0) || !(v[b] > 0)) continue;
          g.moveTo(this.x(km[a]), this.y(v[a]));
          g.lineTo(this.x(km[b]), this.y(v[b]));
        }
        g.stroke();
        g.beginPath();
        const r = many ? 0.9 : low ? 1.6 : 2.3;
        for (let n = 0; n < N; n++) if (phase[n] === of && secondary[n] === low && v[n] > 0) {
          const x = this.x(km[n]), y = this.y(v[n]);
          if (many) g.rect(x - r, y - r, 2 * r, 2 * r); else { g.moveTo(x + r, y); g.arc(x, y, r, 0, 6.2832); }
        }
        g.globalAlpha = low ? 0.5 : 1;
        g.fill();
      }
      g.globalAlpha = 1;
      g.restore();
    }
  }

  // Which traces there are: of what any policy has, one scale for all.
  function listTraces() {
    const found = [];
    const add = (title, unit, of, tell, options = {}) => {
      const all = policies.flatMap((_, p) => of(p));
      if (!all.length) return;
      let low = Infinity, high = -Infinity;
      for (const each of all) for (const v of each.values) if (Number.isFinite(v)) { low = Math.min(low, v); high = Math.max(high, v); }
      if (!Number.isFinite(low)) return;
      if (options.zero) { low = Math.min(low, 0); high = Math.max(high, 0); }
      if (options.least) high = Math.max(high, low + options.least);
      const pad = 0.07 * (high - low || Math.abs(high) || 1);
      found.push({ title, unit, of, tell, whole: options.whole, limits: options.limits, range: options.range || [low - (options.floor ? 0 : pad), high + pad] });
    };
    const ofDevices = (kind, name, factor = 1) => (p) => {
      const own = devices.map((device, i) => [device, series(p, "device." + name, i)]).filter(([device, values]) => kind.includes(device.kind) && values);
      if (own.length <= HUES.length) return own.map(([device, values], n) => ({ name: device.name, values: values.map((v) => factor * v), colour: HUES[n] }));
      const total = Float64Array.from({ length: T }, (_, t) => own.reduce((sum, [, values]) => sum + (values[t] || 0), 0) * factor / (factor === 100 ? own.length : 1));
      return [{ name: `${factor === 100 ? "mean" : "sum"} of ${own.length}`, values: total, colour: HUES[0] }];
    };
    const ofGear = (kind) => (p) => {
      const own = gear.map((each, i) => [each, i]).filter(([each]) => each.kind === kind), few = own.length <= HUES.length;
      return own.map(([each, i], n) => ({ name: few ? each.name : "", values: series(p, "position", i), colour: few ? HUES[n] : "#7d8794", width: few ? 1.7 : 0.8 })).filter((each) => each.values);
    };
    const other = (p) => state.shown[state.shown[0] === p ? 1 : 0];
    const kw = (v) => kilo(v) + " kW";
    const network = (p, name, label, colour, more) => { const values = series(p, "network." + name); return values ? [{ name: label, values, colour, ...more }] : []; };
    add("Source power", "kW", (p) => [
      ...network(p, "demand_kw", "demand of loads", "#98a2ad", { width: 1.2 }),
      ...(state.shown.length > 1 ? network(other(p), "source_p_kw", policies[other(p)].name, "#1c2430", { dash: [3, 3], width: 1 }) : []),
      ...network(p, "source_p_kw", "source", HUES[0]),
    ], kw, { zero: true });
    add("Outside limits", "nodes, branches", (p) => [
      ...network(p, "network_violations", "nodes outside the band", "#d55e00", { area: true }), ...network(p, "network_overloads", "overloaded branches", "#cf1c74"),
    ], (v) => format(v), { zero: true, floor: true, least: 3, whole: true });
    add("Handed back to own controls", "devices", (p) => {
      const own = devices.map((_, i) => series(p, "device.handed_back", i)).filter(Boolean);
      return own.length ? [{ name: "devices", values: Float64Array.from({ length: T }, (_, t) => own.reduce((sum, each) => sum + (each[t] || 0), 0)), colour: HANDED, area: true }] : [];
    }, (v) => format(v), { zero: true, floor: true, least: 3, whole: true });
    add("Lowest and highest voltage", "pu", (p) => [
      ...network(p, "network_v_max_pu", "highest", "#d55e00"), ...network(p, "network_v_min_pu", "lowest", "#0072b2"),
    ], (v) => (Number.isFinite(v) ? v.toFixed(4) : "–"), { limits: limitLines, range: voltRange() });
    add("Taps", "positions from neutral", ofGear("regulator"), signed, { least: 2, whole: true });
    add("Capacitors", "steps on", ofGear("capacitor"), (v) => format(v), { zero: true, least: 1, whole: true });
    add("Storage", "kW into the grid", ofDevices(["storage"], "p_kw"), kw, { zero: true, least: 1 });
    add("State of charge", "%", ofDevices(["storage"], "soc", 100), (v) => format(v) + " %", { range: [0, 104] });
    add("PV and inverters", "kW, dashed: what the sun offers", (p) => [
      ...ofDevices(["inverter"], "available_kw")(p).map((each) => ({ ...each, name: "", dash: [2, 3], width: 1 })), ...ofDevices(["inverter"], "p_kw")(p),
    ], kw, { zero: true });
    add("Reactive power of devices", "kvar into the grid", ofDevices(["storage", "inverter", "generator"], "q_kvar"), (v) => kilo(v) + " kvar", { zero: true, least: 1 });
    add("Generators", "kW", ofDevices(["generator"], "p_kw"), kw, { zero: true, least: 1 });
    add("Cars and flexible loads", "kW into the grid", ofDevices(["ev_charger", "flexible_load"], "p_kw"), kw, { zero: true });
    add("Losses", "kW", (p) => network(p, "network_losses_kw", "losses", HUES[2]), kw, { zero: true, floor: true });
    add("Price", "USD/kWh", (p) => network(p, "price_usd_per_kwh", "price", HUES[4]), (v) => format(v, 3), { zero: true, floor: true });
    // What nothing moves in, with nobody, tells nothing.
    return found.filter((each) => each.title !== "Reactive power of devices" || policies.some((_, p) => each.of(p).some((one) => one.values.some((v) => Math.abs(v) > 0.5))));
  }

  // -- what a step is, in numbers

  class Numbers {
    constructor(panel, policy) {
      this.policy = policy;
      this.list = make("dl", { class: "now" });
      this.cells = ["Source", "Losses", "Lowest", "Highest", "Outside band", "Overloaded"].map((name) => {
        const value = make("dd"), label = make("dt", {}, name), cell = make("div", {}, label, value);
        this.list.append(cell);
        return [cell, value, label];
      });
      panel.append(this.list);
    }
    update(step) {
      const p = this.policy, of = (name) => value(p, "network." + name, 0, step);
      let low = Infinity, high = -Infinity, lowest = 0, highest = 0;
      const all = row(p, "v_pu", step);
      for (const n of nodeOf) {
        const v = all[n] * VOLT;
        if (!(v > 0)) continue;
        if (v < low) { low = v; lowest = n; }
        if (v > high) { high = v; highest = n; }
      }
      const at = (n) => scene.buses.name[scene.nodes.bus[n]];
      const told = [
        [kilo(of("source_p_kw")), "kW"], [kilo(of("network_losses_kw")), "kW"],
        [low.toFixed(3), "pu", low < band[0], "Lowest, " + at(lowest)], [high.toFixed(3), "pu", high > band[1], "Highest, " + at(highest)],
        [format(of("network_violations")), "nodes", of("network_violations") > 0], [format(of("network_overloads")), "branches", of("network_overloads") > 0],
      ];
      told.forEach(([text, unit, bad, name], i) => {
        const [cell, dd, label] = this.cells[i];
        dd.replaceChildren(text + " ", make("small", {}, unit));
        if (name) { setText(label, name); label.title = name; }
        cell.classList.toggle("bad", Boolean(bad));
      });
    }
  }

  // -- the page

  function buildHead() {
    const date = new Date(facts.date + "T12:00:00Z").toLocaleDateString("en-GB", { weekday: "long", day: "numeric", month: "long", year: "numeric", timeZone: "UTC" });
    setText($("title"), `${facts.scenario}: ${date}`);
    const minutes = Math.round(stepH * 60), kind = facts.split === "all" ? "" : `, a day of the ${facts.split} split`;
    setText($("subtitle"), `Feeder ${facts.feeder}, ${format(nBuses)} buses, ${format(N)} nodes; ${format(policies[0].steps)} steps of ${minutes} min${kind}`);
    for (const policy of policies) {
      const notes = [...policy.notes, ...(policy.finished ? [] : ["The power flow diverged, and the day ended there; its numbers are of the steps until then."])];
      for (const note of notes) $("notes").append(make("p", {}, make("b", {}, policy.name + ": "), note));
    }
    const columns = [
      ["Outside the band", "node-hours", "violation_node_hours", 1], ["Lowest", "pu", "v_min_pu", 3], ["Highest", "pu", "v_max_pu", 3], ["Overloaded", "branch-hours", "overload_branch_hours", 1],
      ["Highest loading", "%", "loading_max_pu", 0, 100], ["Losses", "kWh", "losses_kwh", 0], ["Import", "kWh", "import_kwh", 0], ["Peak", "kW", "import_peak_kw", 0], ["Moves", "positions", "operations", 0],
      ["Handed back", "steps", "handed_back", 0], ["Sun not used", "kWh", "curtailed_kwh", 0], ["Battery cycles", "mean", "storage_cycles", 2], ["Cost", "USD", "cost_usd", 0], ["Reward", "mean of agents", "reward", 2],
    ].filter(([, , name]) => policies.some((each) => each.totals[name] !== undefined) && (!["curtailed_kwh", "storage_cycles"].includes(name) || policies.some((each) => each.totals[name] > 0.005)));
    const head = make("tr", {}, make("th", {}, "The whole day"));
    for (const [name, unit] of columns) head.append(make("th", {}, name, make("small", {}, unit)));
    const body = make("tbody");
    policies.forEach((policy, p) => {
      const row = make("tr", {}, make("td", {}, make("span", { class: "mark", "data-policy": p }), policy.name));
      for (const [, , name, digits, factor = 1] of columns) row.append(make("td", {}, policy.totals[name] === undefined ? "–" : format(policy.totals[name] * factor, digits)));
      body.append(row);
    });
    $("totals").append(make("thead", {}, head), body);
  }
  function buildLegend() {
    const w = 300, at = (v) => (v - span[0]) / (span[1] - span[0]) * w, gradient = makeSvg("linearGradient", { id: "volts" });
    for (let i = 0; i <= 150; i++) gradient.append(makeSvg("stop", { offset: i / 150, "stop-color": voltColour(span[0] + (span[1] - span[0]) * i / 150) }));
    const volts = makeSvg("svg", { width: w + 20, height: 44, viewBox: `-10 0 ${w + 20} 44` }, makeSvg("defs", {}, gradient), makeSvg("rect", { x: 0, y: 16, width: w, height: 11, fill: "url(#volts)", stroke: "#9aa3ae", "stroke-width": 0.5 }));
    const mark = (v, text, above) => volts.append(makeSvg("line", { x1: at(v), x2: at(v), y1: above ? 12 : 16, y2: above ? 27 : 31, stroke: "#1c2430" }), makeSvg("text", { x: at(v), y: above ? 10 : 41, "text-anchor": "middle" }, text));
    const isA = Math.abs(band[0] - ansi.A[0]) < 1e-6 && Math.abs(band[1] - ansi.A[1]) < 1e-6;
    mark(band[0], `${band[0]}${isA ? " A" : ""}`, false);
    mark(middle, middle.toFixed(2), false);
    mark(band[1], `${band[1]}${isA ? " A" : ""}`, false);
    for (const v of ansi.B) if (v > span[0] && v < span[1]) mark(v, v.toFixed(3) + " B", true);
    const loads = makeSvg("svg", { width: 200, height: 44, viewBox: "-10 0 200 44" });
    for (let i = 0; i < 45; i++) loads.append(makeSvg("rect", { x: 4 * i, y: i * 0.0334 > 1 ? 15 : 18, width: 4.2, height: i * 0.0334 > 1 ? 11 : 6, fill: loadColour(i * 0.0334) }));
    for (const each of [0, 0.5, 1, 1.5]) loads.append(makeSvg("text", { x: each / 1.5 * 180, y: 41, "text-anchor": "middle" }, each * 100 + " %"));
    $("legend").append(make("div", { class: "item" }, "Buses: voltage of the worst phase, pu", volts), make("div", { class: "item" }, "Branches: loading", loads));
  }
  function buildPanels() {
    const grid = $("grid"), mine = state.shown.map((policy, side) => ({ policy, side: "AB"[side] }));
    grid.replaceChildren();
    state.charts = [];
    state.panels = [];
    const two = mine.length > 1, panel = (side) => { const each = make("section", { class: "panel" + (two && side ? " " + side : "") }); grid.append(each); return each; };
    for (const { policy, side } of mine) {
      const box = panel(side), head = make("h2", {}, policies[policy].name, make("small", {}, policies[policy].kind === "policy" ? "trained policy" : "baseline"));
      box.append(head);
      const numbers = new Numbers(box, policy);
      state.panels.push({ numbers, diagram: new Diagram(box, policy) });
    }
    for (const { policy } of mine) state.charts.push(new Profile(panel(""), policy));
    for (const spec of listTraces()) for (const { policy } of mine) state.charts.push(new Trace(panel(""), spec, policy));
    watcher.disconnect();
    for (const chart of state.charts) watcher.observe(chart.box);
    document.querySelectorAll(".mark").forEach((each) => {
      const side = state.shown.indexOf(Number(each.dataset.policy));
      each.style.background = !two || side < 0 ? "#c3cad3" : `var(--${"ab"[side]})`;
    });
    drawAll();
  }
  function drawStrip() {
    const c = $("strip"), dpr = devicePixelRatio || 1, w = c.clientWidth, h = 22, g = c.getContext("2d");
    if (!w) return;
    c.width = w * dpr;
    c.height = h * dpr;
    g.scale(dpr, dpr);
    g.fillStyle = "#eef0f3";
    g.fillRect(0, 0, w, h);
    const each = h / state.shown.length, most = Math.max(1, ...policies.flatMap((_, p) => [...(series(p, "network.network_violations") || [0])].filter(Number.isFinite)));
    state.shown.forEach((p, side) => {
      const bad = series(p, "network.network_violations"), over = series(p, "network.network_overloads"), own = series(p, "network.handed_back"), floor = each * (side + 1);
      for (let t = 0; t < T; t++) {
        const x1 = w * hours[t] / end, x2 = w * (t + 1 < T ? hours[t + 1] : end) / end;
        if (bad && bad[t] > 0) { g.fillStyle = "#e07a3a"; const tall = Math.max(2, (each - 2) * Math.sqrt(bad[t] / most)); g.fillRect(x1, floor - tall, x2 - x1 + 0.3, tall); }
        if (over && over[t] > 0) { g.fillStyle = "#cf1c74"; g.fillRect(x1, floor - 1.5, x2 - x1 + 0.3, 1.5); }
        if (own && own[t] > 0) { g.fillStyle = HANDED; g.fillRect(x1, floor - each + 1, x2 - x1 + 0.3, 2); }
      }
      if (side) { g.fillStyle = "#fff"; g.fillRect(0, each * side - 0.5, w, 1); }
    });
  }
  function drawAll() {
    drawStrip();
    for (const { diagram } of state.panels) diagram.fit();
    for (const chart of state.charts) chart.draw();
    setStep(state.step, true);
  }
  function setStep(step, always = false) {
    step = Math.max(0, Math.min(T - 1, Math.round(step)));
    if (step === state.step && !always) return;
    state.step = step;
    $("slider").value = step;
    $("slider").setAttribute("aria-valuetext", facts.times[step]);
    setText($("clock"), facts.times[step]);
    for (const { numbers, diagram } of state.panels) { numbers.update(step); diagram.update(step); }
    for (const chart of state.charts) if (chart.inView || always) chart.update(step);
  }
  // Charts that nobody sees wait until they are scrolled to.
  const watcher = new IntersectionObserver((entries) => {
    for (const { target, isIntersecting } of entries) {
      const chart = state.charts.find((each) => each.box === target);
      if (!chart) continue;
      chart.inView = isIntersecting;
      if (isIntersecting) chart.update(state.step);
    }
  });
  const ICON = { play: "M3 1.5L15 9L3 16.5Z", pause: "M3 2h4v14H3ZM11 2h4v14h-4Z" };
  function setPlaying(on) {
    state.playing = on;
    const path = makeSvg("path", { d: on ? ICON.pause : ICON.play });
    $("play").replaceChildren(makeSvg("svg", { width: 18, height: 18, viewBox: on ? "0 0 18 18" : "-1 0 18 18" }, path));
    $("play").setAttribute("aria-label", on ? "Pause" : "Play");
    if (!on) return;
    if (state.step >= T - 1) setStep(0);
    let last = performance.now(), due = 0;
    const tick = (now) => {
      if (!state.playing) return;
      due += (now - last) / 1000 * Number($("speed").value) * Math.max(1, T / 96);
      last = now;
      if (due >= 1) { setStep(state.step + Math.floor(due)); due %= 1; }
      if (state.step >= T - 1) setPlaying(false); else requestAnimationFrame(tick);
    };
    requestAnimationFrame(tick);
  }
  function listen() {
    $("slider").max = T - 1;
    $("slider").addEventListener("input", () => setStep(Number($("slider").value)));
    $("play").addEventListener("click", () => setPlaying(!state.playing));
    document.addEventListener("keydown", (event) => {
      if (event.ctrlKey || event.metaKey || event.altKey || event.target.tagName === "SELECT") return;
      const act = {
        ArrowLeft: () => setStep(state.step - 1), ArrowRight: () => setStep(state.step + 1), Home: () => setStep(0), End: () => setStep(T - 1),
        " ": () => setPlaying(!state.playing), "+": () => zoomBy(1.6), "=": () => zoomBy(1.6), "-": () => zoomBy(1 / 1.6), "0": () => zoomBy(0),
      }[event.key];
      if (!act || (event.key === " " && event.target.tagName === "BUTTON")) return;
      event.preventDefault();
      act();
    });
    for (const [side, id] of ["left", "right"].entries()) {
      policies.forEach((policy, p) => $(id).append(make("option", { value: p }, policy.name)));
      $(id).value = state.shown[side] ?? 0;
      $(id).addEventListener("change", () => { state.shown[side] = Number($(id).value); buildPanels(); });
    }
    if (policies.length < 3) document.querySelectorAll("#bar .two").forEach((each) => { each.hidden = true; each.style.display = "none"; });
    for (const [at, text] of hourTicks) {
      const edge = at === 0 ? "first" : at >= end - 1e-6 ? "last" : "";
      $("ticks").append(make("span", { class: edge, style: `left:${100 * at / end}%` }, text));
    }
    $("bar").classList.toggle("long", facts.times[0].length > 5);
    let width = innerWidth;
    addEventListener("resize", () => { if (innerWidth !== width) { width = innerWidth; drawAll(); } });
    addEventListener("beforeprint", () => { for (const chart of state.charts) chart.update(state.step); });
    addEventListener("hashchange", goToHash);
  }
  function goToHash() {
    const found = /step=(\d+)/.exec(location.hash);
    if (found) setStep(Number(found[1]));
  }

  async function start() {
    await unpack();
    buildHead();
    buildLegend();
    listen();
    setPlaying(false);
    // Opened where most is wrong, else at the middle of the day.
    const worst = series(state.shown[0], "network.network_violations");
    state.step = worst && Math.max(...worst) > 0 ? worst.indexOf(Math.max(...worst)) : Math.floor(T / 2);
    buildPanels();
    goToHash();
    document.body.dataset.ready = "yes";
  }
  start();
})();
