// Decisions as files, with the same content as sat_xception/review/record.py writes: a feature, or a line, a tile.
"use strict";

(() => {
  const COLUMNS = ["tile_id", "x", "y", "z", "verdict", "site", "score", "note", "reviewer", "time"];
  const VERDICTS = new Set(["yes", "no", "unsure"]);

  function outline(x, y, z) {
    const lon = (column) => round((column / 2 ** z) * 360 - 180);
    const lat = (row) => round((Math.atan(Math.sinh(Math.PI * (1 - (2 * row) / 2 ** z))) * 180) / Math.PI);
    const [west, east, north, south] = [lon(x), lon(x + 1), lat(y), lat(y + 1)];
    return [[west, south], [east, south], [east, north], [west, north], [west, south]];
  }

  function round(degrees) {
    return Math.round(degrees * 1e7) / 1e7;
  }

  // "No" is about every tile that was shown, "yes" about the best one only.
  function tilesOf(data, index, decision) {
    const [x, y] = [data.x[index], data.y[index]];
    const tiles = [[0, 0], ...data.beside[index]].map(([across, down]) => [x + across, y + down]);
    return tiles.map(([column, row], place) => ({
      tile_id: `${data.zoom}/${column}/${row}`,
      x: column,
      y: row,
      z: data.zoom,
      verdict: place === 0 || decision.verdict === "no" ? decision.verdict : "unsure",
      site: `${data.zoom}/${x}/${y}`,
      score: data.score[index],
      note: decision.note,
      reviewer: decision.reviewer,
      time: decision.time,
    }));
  }

  // decisions: [index, decision] pairs.
  function toGeoJSON(data, decisions) {
    const features = decisions.flatMap(([index, decision]) => tilesOf(data, index, decision)).map((tile) =>
      JSON.stringify({
        type: "Feature",
        properties: tile,
        geometry: { type: "Polygon", coordinates: [outline(tile.x, tile.y, tile.z)] },
      }),
    );
    return `{"type":"FeatureCollection","features":[\n${features.join(",\n")}\n]}\n`;
  }

  function toCSV(data, decisions) {
    const rows = decisions.flatMap(([index, decision]) => tilesOf(data, index, decision));
    const lines = rows.map((tile) => COLUMNS.map((name) => cell(tile[name])).join(","));
    return [COLUMNS.join(","), ...lines].join("\r\n") + "\r\n";
  }

  // A spreadsheet runs what begins with one of these and is no number; an apostrophe before it makes it text. The same
  // rule as in sat_xception/reports/spreadsheet.py.
  function cell(value) {
    const runs = typeof value === "string" && /^['=+\-@\t\r]/.test(value);
    const isNumber = /^[+-]?[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]+)?$/.test(value);
    const text = runs && !isNumber ? `'${value}` : String(value);
    return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  }

  // Returns the decisions in a file: [{site, verdict, note, reviewer, time}]. Throws an Error that says what is wrong.
  function read(text, name) {
    const rows = /\.csv$/i.test(name) ? readCSV(text) : readGeoJSON(text);
    const best = rows.filter((row) => row.tile_id && row.tile_id === row.site);
    if (!best.length) throw new Error(`${name} holds no review: no row has the same tile_id and site`);
    const wrong = best.find((row) => !VERDICTS.has(row.verdict));
    if (wrong) throw new Error(`${name} has the verdict “${wrong.verdict}”; expected yes, no or unsure`);
    return best.map((row) => ({
      site: row.site,
      verdict: row.verdict,
      note: cut(row.note, 2000),
      reviewer: cut(row.reviewer, 100),
      time: cut(row.time, 40),
    }));
  }

  // By whole characters: half of one isn't text that a server takes.
  function cut(value, length) {
    return [...String(value ?? "")].slice(0, length).join("");
  }

  function readGeoJSON(text) {
    let content;
    try {
      content = JSON.parse(text);
    } catch (error) {
      throw new Error(`it isn't GeoJSON: ${error.message}`);
    }
    if (!Array.isArray(content?.features)) throw new Error("it isn't GeoJSON: it has no features");
    return content.features.map((feature) => feature?.properties ?? {});
  }

  function readCSV(text) {
    const rows = [[]];
    let [field, quoted] = ["", false];
    const end = () => {
      rows.at(-1).push(field);
      field = "";
    };
    for (let at = text.charCodeAt(0) === 0xfeff ? 1 : 0; at < text.length; at++) {
      const char = text[at];
      if (quoted && char === '"' && text[at + 1] === '"') field += text[++at];
      else if (char === '"') quoted = !quoted;
      else if (quoted) field += char;
      else if (char === ",") end();
      else if (char === "\n") {
        end();
        rows.push([]);
      } else if (char !== "\r") field += char;
    }
    end();
    const [head, ...lines] = rows;
    const missing = ["tile_id", "site", "verdict"].find((column) => !head.includes(column));
    if (missing) throw new Error(`it has no column ${missing}`);
    const value = (texts, column) => (texts[head.indexOf(column)] ?? "").replace(/^'(?=['=+\-@\t\r])/, "");
    return lines.filter((texts) => texts.length > 1).map((texts) =>
      Object.fromEntries(COLUMNS.map((column) => [column, value(texts, column)])),
    );
  }

  window.ReviewRecord = { read, toCSV, toGeoJSON };
})();
