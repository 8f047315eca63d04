//! Builds Chinese phrases with measure words.

use super::phrase::Of::{Any, Expression, Thing};
use super::phrase::Phrase;

/// `{name}` is the word, `{measure}` a measure word for it.
#[rustfmt::skip]
pub(super) const PHRASES: &[Phrase] = &[
    Phrase { of: Any, weight: 6.0, pattern: "{name}" },
    Phrase { of: Thing, weight: 5.0, pattern: "一{measure}{name}" },
    Phrase { of: Any, weight: 1.5, pattern: "{name}的图片" },
    Phrase { of: Any, weight: 1.2, pattern: "一张{name}的图片" },
    Phrase { of: Thing, weight: 1.2, pattern: "一{measure}{name}的图片" },
    Phrase { of: Any, weight: 0.4, pattern: "{name}图片" },
    Phrase { of: Any, weight: 0.8, pattern: "{name}的照片" },
    Phrase { of: Any, weight: 0.8, pattern: "一张{name}的照片" },
    Phrase { of: Thing, weight: 0.6, pattern: "一{measure}{name}的照片" },
    Phrase { of: Thing, weight: 1.0, pattern: "画一{measure}{name}" },
    Phrase { of: Thing, weight: 0.4, pattern: "请画一{measure}{name}" },
    Phrase { of: Thing, weight: 0.4, pattern: "帮我画一{measure}{name}" },
    Phrase { of: Thing, weight: 0.4, pattern: "我想要一{measure}{name}" },
    Phrase { of: Thing, weight: 0.4, pattern: "这是一{measure}{name}" },
    Phrase { of: Thing, weight: 0.3, pattern: "给我画一{measure}{name}" },
    Phrase { of: Thing, weight: 0.3, pattern: "生成一{measure}{name}" },
    Phrase { of: Thing, weight: 0.2, pattern: "来一{measure}{name}" },
    Phrase { of: Thing, weight: 0.3, pattern: "一{measure}小{name}" },
    Phrase { of: Thing, weight: 0.3, pattern: "一{measure}大{name}" },
    Phrase { of: Thing, weight: 0.2, pattern: "我的{name}" },
    Phrase { of: Any, weight: 0.2, pattern: "画{name}" },
    Phrase { of: Thing, weight: 1.0, pattern: "可爱的{name}" },
    Phrase { of: Thing, weight: 1.0, pattern: "一{measure}可爱的{name}" },
    Phrase { of: Thing, weight: 0.4, pattern: "漂亮的{name}" },
    Phrase { of: Thing, weight: 0.4, pattern: "一{measure}漂亮的{name}" },
    Phrase { of: Thing, weight: 0.3, pattern: "好看的{name}" },
    Phrase { of: Thing, weight: 0.3, pattern: "一{measure}可爱的小{name}" },
    Phrase { of: Thing, weight: 0.4, pattern: "卡通{name}" },
    Phrase { of: Thing, weight: 0.4, pattern: "一{measure}白色背景上的{name}" },
    Phrase { of: Any, weight: 0.4, pattern: "白色背景上的{name}" },
    Phrase { of: Any, weight: 0.4, pattern: "{name}图标" },
    Phrase { of: Any, weight: 0.5, pattern: "{name}的表情符号" },
    Phrase { of: Any, weight: 0.4, pattern: "{name}表情" },
    Phrase { of: Any, weight: 0.4, pattern: "{name}的插图" },
    Phrase { of: Any, weight: 0.3, pattern: "{name}的卡通画" },
    Phrase { of: Any, weight: 0.4, pattern: "一幅{name}的画" },
    Phrase { of: Any, weight: 0.3, pattern: "一张画着{name}的图" },
    Phrase { of: Expression, weight: 1.5, pattern: "{name}的表情" },
    Phrase { of: Expression, weight: 1.2, pattern: "一个{name}的表情" },
    Phrase { of: Expression, weight: 0.8, pattern: "一个{name}的人" },
    Phrase { of: Expression, weight: 0.6, pattern: "画一个{name}的表情" },
    Phrase { of: Expression, weight: 0.6, pattern: "{name}的样子" },
];

pub(super) fn slot(slot: &str, word: &str, subcategory: &str) -> Vec<String> {
    match slot {
        "measure" => measure_words(word, subcategory).iter().map(|&measure| measure.to_owned()).collect(),
        _ => vec![word.to_owned()],
    }
}

/// Measure words for a word. Its ending decides (every …车 is a 辆), then its subcategory.
fn measure_words(word: &str, subcategory: &str) -> &'static [&'static str] {
    let by_ending = BY_ENDING.iter().find(|(ending, _)| word.ends_with(ending));
    let by_subcategory = || BY_SUBCATEGORY.iter().find(|(prefix, _)| subcategory.starts_with(prefix));
    by_ending.or_else(by_subcategory).map_or(&["个"], |(_, measures)| measures)
}

/// The first match counts.
#[rustfmt::skip]
const BY_ENDING: &[(&str, &[&str])] = &[
    ("火车", &["列", "辆"]), ("列车", &["列", "辆"]), ("地铁", &["列", "辆"]), ("电车", &["辆", "列"]),
    ("轮椅", &["辆", "个"]), ("缆车", &["辆", "个"]), ("过山车", &["个", "辆"]), ("购物车", &["辆", "个"]),
    ("车", &["辆"]), ("坦克", &["辆"]), ("飞机", &["架"]), ("直升机", &["架"]), ("钢琴", &["架"]),
    ("船", &["艘", "条"]), ("艇", &["艘", "条"]), ("轮", &["艘", "个"]), ("舟", &["艘", "条"]),
    ("斑马", &["匹", "只"]), ("河马", &["头", "只"]), ("木马", &["个", "匹"]), ("马", &["匹", "只"]), ("狼", &["只", "匹"]),
    ("蜗牛", &["只"]), ("牛", &["头", "只"]), ("猪", &["头", "只"]), ("象", &["头", "只"]), ("驴", &["头", "只"]),
    ("骆驼", &["头", "只"]), ("狮子", &["头", "只"]),
    ("狗", &["只", "条"]), ("犬", &["只", "条"]), ("章鱼", &["只"]), ("鱼", &["条", "只"]), ("蛇", &["条", "只"]),
    ("龙", &["条", "只"]), ("毛毛虫", &["条", "只"]), ("蠕虫", &["条", "只"]),
    ("花束", &["束"]), ("花", &["朵"]), ("玫瑰", &["朵", "支"]), ("郁金香", &["朵", "支"]), ("向日葵", &["朵", "株"]),
    ("树", &["棵"]), ("叶", &["片"]), ("草", &["棵", "株"]), ("云", &["朵"]),
    ("香蕉", &["根", "串", "个"]), ("葡萄", &["串", "颗"]), ("樱桃", &["颗", "个"]), ("草莓", &["颗", "个"]), ("西瓜", &["个", "块"]),
    ("蛋糕", &["块", "个"]), ("面包", &["个", "块"]), ("面条", &["碗", "份"]), ("饭", &["碗", "份"]), ("披萨", &["块", "个", "份"]),
    ("糖", &["颗", "块"]), ("巧克力", &["块"]), ("肉", &["块"]),
    ("酒", &["杯", "瓶"]), ("茶", &["杯", "壶"]), ("咖啡", &["杯"]), ("奶", &["杯", "瓶"]), ("瓶", &["个"]), ("壶", &["把", "个"]),
    ("山", &["座"]), ("桥", &["座"]), ("塔", &["座"]), ("城堡", &["座"]), ("岛", &["座", "个"]), ("房子", &["座", "栋", "个"]),
    ("鞋", &["双", "只"]), ("靴", &["双", "只"]), ("袜子", &["双", "只"]), ("手套", &["双", "只"]), ("筷子", &["双", "根"]),
    ("裤", &["条"]), ("裙", &["条"]), ("围巾", &["条"]), ("领带", &["条"]), ("帽", &["顶"]), ("皇冠", &["顶"]), ("头盔", &["顶", "个"]),
    ("眼镜", &["副"]), ("墨镜", &["副"]), ("戒指", &["枚", "个"]), ("宝石", &["颗"]), ("伞", &["把"]), ("刀", &["把"]), ("剑", &["把"]),
    ("锁", &["把"]), ("钥匙", &["把"]), ("椅子", &["把"]), ("床", &["张"]), ("门", &["扇", "个"]), ("窗户", &["扇", "个"]), ("镜子", &["面", "个"]),
    ("电脑", &["台"]), ("相机", &["台", "部"]), ("手机", &["部", "个"]), ("电话", &["部", "个"]), ("机", &["台", "部"]),
    ("书", &["本"]), ("本", &["本"]), ("报纸", &["份", "张"]), ("信", &["封"]), ("信封", &["个"]), ("笔", &["支"]), ("蜡烛", &["支", "根"]),
    ("地图", &["张"]), ("画", &["幅"]), ("票", &["张"]), ("旗", &["面"]), ("鼓", &["面", "个"]), ("灯", &["盏"]),
    ("星星", &["颗"]), ("星", &["颗"]), ("心", &["颗"]), ("牙齿", &["颗"]), ("彩虹", &["道"]), ("月亮", &["个", "轮"]), ("太阳", &["个", "轮"]),
];

/// By prefix of the subcategory; the first match counts.
#[rustfmt::skip]
const BY_SUBCATEGORY: &[(&str, &[&str])] = &[
    ("animal-", &["只", "个"]),
    ("cat-face", &["只", "个"]),
    ("plant-flower", &["朵"]),
    ("plant-other", &["棵", "株"]),
    ("food-fruit", &["个", "颗"]),
    ("food-vegetable", &["个", "根"]),
    ("food-prepared", &["份", "个", "块"]),
    ("food-asian", &["份", "个"]),
    ("food-sweet", &["个", "块", "份"]),
    ("drink", &["杯", "瓶"]),
    ("place-building", &["座", "栋", "个"]),
    ("place-religious", &["座", "个"]),
    ("place-geographic", &["座", "个"]),
    ("transport-ground", &["辆", "个"]),
    ("transport-water", &["艘", "个"]),
    ("transport-air", &["架", "个"]),
    ("person", &["个", "位", "名"]),
    ("clothing", &["件", "个"]),
    ("musical-instrument", &["把", "个"]),
    ("phone", &["部", "个"]),
    ("computer", &["台", "个"]),
    ("book-paper", &["本", "张"]),
    ("money", &["张", "个"]),
    ("writing", &["支"]),
    ("tool", &["把", "个"]),
];

#[cfg(test)]
mod tests {
    use super::measure_words;

    #[test]
    fn measure_words_follow_the_word_then_its_kind() {
        let expected = [
            ("猫", "animal-mammal", "只"),
            ("消防车", "transport-ground", "辆"),
            ("玫瑰", "plant-flower", "朵"),
            ("生日蛋糕", "food-sweet", "块"),
            ("蜗牛", "animal-bug", "只"),
            ("奶牛", "animal-mammal", "头"),
            ("T恤", "clothing", "件"),
            ("气球", "event", "个"),
        ];
        for (word, subcategory, measure) in expected {
            assert_eq!(measure_words(word, subcategory).first(), Some(&measure), "{word}");
        }
    }
}
