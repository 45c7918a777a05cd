// The page's words that depend on what is in the picture, in English and in Chinese.

const CHINESE = {
  left: "左边", middle: "中间", right: "右边",
  park: "公园", street: "街道", lake: "湖面", room: "房间", beach: "海滩",
  red: "红", orange: "橙", yellow: "黄", green: "绿", blue: "蓝", purple: "紫", white: "白", black: "黑",
  "": "站着", reading: "看书", waving: "挥手", painting: "画画", fishing: "钓鱼", ironing: "熨衣服",
  person: "人", cat: "猫", dog: "狗", horse: "马", cow: "牛", sheep: "绵羊", rabbit: "兔子", bird: "鸟",
  duck: "鸭子", fish: "鱼", butterfly: "蝴蝶", car: "小汽车", bus: "公共汽车", truck: "卡车", bicycle: "自行车",
  boat: "船", plane: "飞机", tree: "树", flower: "花", mushroom: "蘑菇", house: "房子", chair: "椅子",
  table: "桌子", lamp: "台灯", clock: "钟", cup: "杯子", book: "书", ball: "球", box: "箱子", umbrella: "雨伞",
  balloon: "气球", kite: "风筝", hat: "帽子",
}
const chinese = () => document.documentElement.lang === "zh"

export const say = (english, inChinese) => (chinese() ? inChinese : english)

// A word of the picture book. In Chinese the English word stays beside it: questions are asked in English.
export const word = name => say(name || "standing", name ? `${CHINESE[name]} ${name}` : CHINESE[name])

export function thingName({ kind, colour, doing }) {
  const inEnglish = kind === "person" ? `person in ${colour}` : `${colour} ${kind}`
  const inChinese = `${kind === "person" ? `穿${CHINESE[colour]}衣服` : `${CHINESE[colour]}色`}的${CHINESE[kind]}`
  return say(inEnglish + (doing ? `, ${doing}` : ""), inChinese + (doing ? `，在${CHINESE[doing]}` : ""))
}

export const where = (name, side) => say(`${name}, ${side}`, `${name}，${CHINESE[side]}`)
